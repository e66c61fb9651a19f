"""`python -m api.local_dialog model|dataset`: asks the person at this machine for a file, or
for the folder of a data set that has one folder per class.

Prints the chosen path, or nothing. A process of its own, because tkinter wants the main thread
and a dialog may stay open for ever.
"""

from __future__ import annotations

import sys

TYPES = {
    "model": [("Model weights", "*.pt *.pth"), ("All files", "*")],
    "dataset": [("data.yaml", "*.yaml *.yml"), ("All files", "*")],
}


def main(file_type: str) -> None:
    import tkinter  # missing from many a server
    from tkinter import filedialog

    root = tkinter.Tk()
    root.withdraw()
    root.attributes("-topmost", True)
    title = "Weights" if file_type == "model" else "A data.yaml; cancel to choose a folder instead"
    chosen = filedialog.askopenfilename(parent=root, title=title, filetypes=TYPES[file_type])
    if not chosen and file_type == "dataset":
        title = "A folder with one folder per class"
        chosen = filedialog.askdirectory(parent=root, title=title, mustexist=True)
    print(chosen or "")
    root.destroy()


if __name__ == "__main__":
    main(sys.argv[1])
