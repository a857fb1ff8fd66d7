"""`python -m videodeblur NAME ...`, and `python videodeblur NAME ...` from the repository, are the installed command."""

import sys
from pathlib import Path

if not __package__:  # run as a folder: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from videodeblur import main

raise SystemExit(main())
