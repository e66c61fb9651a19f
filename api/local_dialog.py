"""`python -m api.local_dialog model|dataset`: asks the person at this machine for a file.

Prints the chosen path, or nothing. A process of its own, because tkinter wants the main thread
and a dialog may stay open for ever.
"""

from __future__ import annotations

import sys

TYPES = {
    "model": [("Model weights", "*.pt *.pth *.safetensors *.zip"), ("All files", "*")],
    "dataset": [("data.yaml", "*.yaml *.yml"), ("All files", "*")],
}


def main(file_type: str) -> None:
    import tkinter
    from tkinter import filedialog

    root = tkinter.Tk()
    root.withdraw()
    root.attributes("-topmost", True)
    print(filedialog.askopenfilename(parent=root, filetypes=TYPES[file_type]) or "")
    root.destroy()


if __name__ == "__main__":
    main(sys.argv[1])
