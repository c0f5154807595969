"""Vocabulary, errors, codec, pins and the event chain: what every other part speaks. Imports no sibling."""
