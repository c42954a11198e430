"""Start of the program: ``python -I -S -B …/runtime/init FD NODE DIRECTORY``; see `server.main`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parent.parent)
    # The package is found under its last name here, so that shem itself is never imported.
    from init.server import main  # type: ignore[import-not-found]

    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
