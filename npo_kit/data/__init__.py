"""Data for a model: rows, tasks, prompts, and the files that travel with the kit."""

from npo_kit import facade

__all__, __getattr__, __dir__ = facade(
    __name__,
    {
        "rows": ("DataError", "Row", "load_rows", "row_problem"),
        "tasks": (
            *("TASKS", "TOFU_FOLDER_VARIABLE", "TOFU_HUB", "TOFU_PERTURBED_TAIL", "TOFU_ROWS"),
            *("TOFU_SETS", "Task", "draw_refusals", "evaluation_rows", "load_authors"),
            *("load_task", "load_tofu", "own_task"),
        ),
        "prompts": ("Encoded", "PromptError", "PromptFormat"),
        "shipped": ("shipped_data",),
    },
)
