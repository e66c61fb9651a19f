"""`python -m api.local_dialog model|dataset`: a desktop dialog for a file or a dataset's folder.

Prints the chosen path, or an empty line. It runs in a separate process, because tkinter needs the
main thread, and because the user may never close the dialog.
"""

from __future__ import annotations

import sys

TYPES = {
    "model": [("Model weights", "*.pt *.pth"), ("All files", "*")],
    "dataset": [("data.yaml", "*.yaml *.yml"), ("All files", "*")],
}


def main(file_type: str) -> None:
    """Open the dialog and print the chosen path."""
    import tkinter  # not installed on many servers
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
