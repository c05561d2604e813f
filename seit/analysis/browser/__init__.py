"""Pages on which people look at stores and runs: the server of `seit view`, and its static copy.

Every page is rendered here from templates with autoescaping; the only scripts are the files in
`static`. Nothing is ever written, and no part of an address becomes the path of a file: splits are
looked up by name in the card, samples and codes by number, runs by their place in a list.
"""
