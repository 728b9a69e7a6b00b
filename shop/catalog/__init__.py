"""The goods: what they are, what they cost, how many there are."""
