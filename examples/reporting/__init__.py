"""What a run did: figures, the closing report, and what is shown on the way."""
