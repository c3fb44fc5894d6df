"""Open the dashboard: `python app.py [STUDY FOLDER] [--port N] [--host H]`."""

import sys

from npo_kit.app import main

if __name__ == "__main__":
    sys.exit(main())
