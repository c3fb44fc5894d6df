"""Data for a model: rows, tasks, prompts, and the files that travel with the kit."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "parsing": ("DataError",),
        "rows": ("Row", "is_passage", "load_rows", "question_of", "row_problem"),
        "tasks": (
            *("TASKS", "TOFU_FOLDER_VARIABLE", "TOFU_HUB", "TOFU_PERTURBED_TAIL", "TOFU_ROWS"),
            *("TOFU_SETS", "Task", "draw_refusals", "evaluation_rows", "load_authors"),
            *("load_passages", "load_task", "load_tofu", "own_task"),
        ),
        "long_rows": ("LONG_ROWS", "fit_rows"),
        "prompts": ("Encoded", "PromptError", "PromptFormat"),
        "shipped": ("shipped_data",),
    },
)
