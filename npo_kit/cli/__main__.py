"""`python -m npo_kit.cli`, which launchers of several processes start."""

from npo_kit.cli.program import end, main

if __name__ == "__main__":
    end(main())
