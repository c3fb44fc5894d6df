"""Open the dashboard: `python app.py [STUDY FOLDER] [--port N] [--host H]`.

A Hugging Face Space runs the checkout as it is, with this at the top of its README:

    ---
    title: npo_kit
    sdk: gradio
    sdk_version: 6.31.0
    python_version: "3.12"
    app_file: app.py
    ---
"""

import sys

from npo_kit.app import main

if __name__ == "__main__":
    sys.exit(main())
