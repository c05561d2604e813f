"""Search over settings of recipes: random draws, and successive halving.

The space names settings and their values; each draw is a trial, an ordinary run that is paused and
judged on samples held out of the training split. Validation data are read once, for the winner.
"""
