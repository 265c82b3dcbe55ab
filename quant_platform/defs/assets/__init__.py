"""One module per domain of assets; a body reads like a sentence: read, calculate, write, metadata."""
