"""What the notebooks use: exercises that check answers, figures, widgets."""
