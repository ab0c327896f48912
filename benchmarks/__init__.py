"""batchkit and its peers, measured side by side: `python3 noxfile.py -s bench -- --help`."""
