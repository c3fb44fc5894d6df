"""A made-up TOFU: sets of the real one's sizes, in which every row says its number."""

import json


def made_up_tofu():
    """Sets of TOFU's sizes and order in which every row says its number."""

    def rows(numbers, kind):
        return [
            {
                "question": f"q{i}",
                "answer": f"{kind} a{i}",
                "paraphrased_answer": f"p{i}",
                "perturbed_answer": ["w"] * 5,
            }
            for i in numbers
        ]

    return {
        "full": [{"question": f"q{i}", "answer": f"a{i}"} for i in range(4000)],
        "forget10_perturbed": rows(range(3600, 4000), "forget"),
        "retain_perturbed": rows(range(400), "retain"),
        "real_authors_perturbed": rows(range(9000, 9100), "real"),
        "world_facts_perturbed": rows(range(9100, 9217), "world"),
    }


def write_sets(folder, sets, suffix=".json"):
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in sets.items():
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / f"{name}{suffix}").write_text(lines, encoding="utf-8")
    return folder
