"""A store of several labels per sample, made of the three patterns."""

import json

import seit


def labels_of(path):
    """A pattern, and whether the number in the file's name is even or large."""
    number = int(path.stem.removeprefix(path.parent.name))
    return [path.parent.name, *(["even"] if number % 2 == 0 else []), *["late"] * (number > 3)]


def write_several(pattern_folder, folder):
    """Make FOLDER/store; one file has no label of the classes, and one is unlabeled in val."""
    lines = []
    for path in sorted((pattern_folder / "pictures").glob("*/*/*.png")):
        labels = labels_of(path)
        if path.parts[-3:] == ("val", "dots", "dots0.png"):
            labels = None
        if path.parts[-3:] == ("train", "dots", "dots0.png"):
            labels = []
        lines.append({"path": str(path), "split": path.parts[-3], "labels": labels})
    table = folder / "table.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokenizer = pattern_folder / "store" / "tokenizer.safetensors"
    seit.tokenize(table, out=folder / "store", tokenizer=str(tokenizer))
    return seit.open(folder / "store")
