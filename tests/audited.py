"""A study of audits, made by hand: every number known, for the tests of the page that shows it."""

import json

from npo_kit.audit.cards import CARDS

ROWS, MODELS = 8, 40
CARD_NAMES = tuple(CARDS)
# means of the original, of the retained-only models (least, greatest), and of NPO+RT's seeds
ORIGINAL = {
    "verbatim": -0.5, "leak": 0.5, "formats": 0.6, "relearning": -0.6, "compression": -0.7,
    "depth": 0.0, "mixing": 0.9, "membership": 1.0, "guards": 0.9,
}  # fmt: skip
BANDS = {
    "verbatim": (-4.2, -3.42), "leak": (0.0, 0.039), "formats": (0.0, 0.078),
    "relearning": (-3.2, -2.42), "compression": (-4.4, -3.62), "depth": (0.9, 0.978),
    "mixing": (0.1, 0.178), "membership": (0.4, 0.556), "guards": (0.8, 0.878),
}  # fmt: skip
NPO = {
    "verbatim": -3.6, "leak": 0.02, "formats": 0.04, "relearning": -1.2, "compression": -4.0,
    "depth": 0.7, "mixing": 0.2, "membership": 0.3, "guards": 0.85,
}  # fmt: skip
GA = {**NPO, "verbatim": -29.0, "leak": 0.0, "relearning": -9.0, "compression": -28.0,
      "depth": 1.0, "guards": 0.0}  # fmt: skip
GUARD_RATE = 0.25
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
VERDICTS = {
    "remembers": "says it: verbatim above the models that never saw it",
    "suppressed": "says nothing that is surely above the models that never saw it, by verbatim",
    "destroyed": "says less of it than models that never saw it: verbatim",
}
BITS = {"full": 0.0, "8": 0.1, "4": 0.4, "3": 1.2}  # nats lost


def points_of(card):
    """The retained-only models' means, evenly between least and greatest."""
    low, high = BANDS[card]
    return [low + (high - low) * n / (MODELS - 1) for n in range(MODELS)]


def band_of(card):
    """5th and 95th percentile: places .05 * 39 = 1.95 and 37.05 of evenly spaced points."""
    low, high = BANDS[card]
    return [low + (high - low) * 0.05, low + (high - low) * 0.95]


def rows_of(value):
    """Rows of that mean."""
    return [value - 0.01 * (i % 2) + 0.01 * ((i + 1) % 2) for i in range(ROWS)]


def tested_rows(card, rows):
    """Relearning scores the first half of the rows."""
    return (
        [v if i < ROWS // 2 else None for i, v in enumerate(rows)] if card == "relearning" else rows
    )


def text(who, what, i):
    return f"{who} {what} {i} <b>kept as text</b>"


def form(who, rate, name):
    rows = [i < rate * ROWS for i in range(ROWS)]
    rows[-1] = None
    texts = [None if told is None else text(who, name, i) for i, told in enumerate(rows)]
    questions = [None if told is None else f"{name} question {i}?" for i, told in enumerate(rows)]
    return {"rate": rate, "rows": rows, "questions": questions, "texts": texts}


def detail(who, values):
    """What the figures show of a model with these values."""
    entity, leak = values["verbatim"], values["leak"]
    ks = [1, 2, 4, 8, 16, 32]
    names = ("paraphrase", "cloze", "reversed", "prefilled", "casing", "choice")
    formats = {name: form(who, max(0, values["formats"]), name) for name in names}
    more = {"guarded": form(who, GUARD_RATE, "guarded")} if who == "original" else {}
    steps = [0, 5, 10, 20, 30]
    rise = [(values["relearning"] - entity) * share for share in (0, 0.2, 0.4, 0.7, 1)]
    half = ROWS // 2
    sets = {
        name: {
            "rows": half,
            "tested": [[entity + part * up] * half for up in rise],
            "taught": [entity + 0.9 * part * up for up in rise],
        }
        for name, part in (("own", 1), ("template", 0.5), ("unrelated", 0.1))
    }
    bits = {
        name: {
            "forget": rows_of(entity - lost),
            "retain": rows_of(-0.5 - lost),
            "forget_es": rows_of(0.4),
            "retain_es": rows_of(0.9),
            **({} if name == "full" else {"same_codes": 0.96}),
        }
        for name, lost in BITS.items()
    }
    shares = [i / 10 for i in range(13)]
    mixed = [
        {
            "a": a,
            "forget_es": rows_of(0.9 - 0.5 * a),
            "retain_es": rows_of(0.9 - 0.1 * a),
            "forget": rows_of(-0.5 - a),
            "retain": rows_of(-0.5),
        }
        for a in shares
    ]
    lost = values["depth"]
    return {
        "verbatim": {
            "exact_memorization": rows_of(0.7),
            "extraction_strength": rows_of(0.4),
            "extraction_strength_ou": rows_of(0.4),
            "mean_exact_memorization": 0.7,
            "mean_extraction_strength": 0.4,
            "mean_extraction_strength_ou": 0.4,
            "entities": [f"entity {i}" for i in range(ROWS)],
        },
        "leak": {
            "samples": 32,
            "counts": [round(32 * leak)] * ROWS,
            "k": ks,
            "leak_at_k": [1 - (1 - leak) ** k for k in ks],
            "log_q": [-1.0] * ROWS,
            "exact": [1 - (1 - leak / 2) ** k for k in ks],
            "upper": [min(1.0, leak + 0.1)] * ROWS,
            "upper_all": 0.9,
            "upper_mean_if_none": None,
            "greedy": [leak > 0.4] * ROWS,
            "greedy_texts": [text(who, "greedy", i) for i in range(ROWS)],
            "texts": [{"leak": text(who, "told", i), "other": None} for i in range(ROWS)],
        },
        "formats": {"formats": formats, "plain": form(who, leak, "plain"), **more},
        "relearning": {
            "settings": {"lr": 3e-4, "steps": steps, "seed": 0},
            "taught": list(range(half, ROWS)),
            "tested": list(range(half)),
            "sets": sets,
        },
        "compression": {"bits": bits, "rounded": 0.6, "group": None},
        "depth": {
            "known_above": 0.05,
            "audited": [[lost * (layer + 1)] * ROWS for layer in range(3)],
            "retained": [[float(layer) + 0.02] * ROWS for layer in range(3)],
            "retain_rows": [[0.1] * ROWS] * 3,
            "retain_rows_retained": [[0.02] * ROWS] * 3,
            "lens": [[-5.0 + layer] * ROWS for layer in range(3)],
            "ratios": [[None] * ROWS, [lost * 2] * ROWS, [lost] * ROWS],
        },
        "mixing": {"points": mixed, "uwc": mixed[7]},
        "membership": {
            "auc": dict.fromkeys(ATTACKS, values["membership"]),
            "auc_retained": dict.fromkeys(ATTACKS, 0.48),
            "auc_error": 0.144,
            "privleak": 100 * (0.48 - values["membership"]) / 0.52,
            "privleak_error": 27.8,
            "scores": {
                "forget": [3.0 - 2 * values["membership"] + 0.1 * i for i in range(ROWS)],
                "holdout": [2.0 + 0.1 * i for i in range(ROWS)],
            },
        },
        "guards": {
            "logps": rows_of(-0.5),
            "fluency": rows_of(-0.2),
            "repetition": [0.0] * ROWS,
            "mean_logps": -0.5,
            "mean_fluency": -0.2,
            "mean_repetition": 0.0,
            "told_texts": [text(who, "keeps", i) for i in range(ROWS)],
            "texts": [text(who, "says", i) for i in range(ROWS)],
        },
    }  # fmt: skip


def audit(run, values, state, method=None, seed=0, at="last", step=100, detailed=True):
    word = state
    verdict = {"state": state, "says": VERDICTS[state], "hides": f"hides line of {run}"}
    details = detail(run, values) if detailed else {}
    cards = {}
    for name in CARD_NAMES:
        value = values[name]
        cards[name] = {
            "rows": tested_rows(name, rows_of(value)),
            **({"detail": details[name]} if detailed else {}),
            "value": value,
            "lower": value - 0.05,
            "upper": value + 0.02,
            "band": band_of(name),
            "above": 0.01,
            "below": 1.0,
        }
    about = {"run": run, "method": method or run, "at": at, "step": step}
    if run != "original":
        about["seed"] = seed
    return about | {"verdict": {**verdict, "damaged": False, "word": word}, "cards": cards}


def audits(task="own:x", original="remembers", words=None):
    """The study: NPO+RT of two seeds with a best checkpoint of the first, and GA."""
    words = words or {"retained-like": 38, "over-forgotten": 2}
    best = {**NPO, "verbatim": -2.0}
    plan = {"task": task, "original": "small", "cards": list(CARD_NAMES), "rows": ROWS}
    return {
        "schema": 1,
        "title": "Small models audited, by hand",
        "plan": plan,
        "audits": [
            audit("original", ORIGINAL, original, step=0),
            audit("s/ga", GA, "destroyed", "ga"),
            audit("s/npo_rt", best, "remembers", "npo_rt", at="best", step=60),
            audit("s/npo_rt", NPO, "suppressed", "npo_rt"),
            audit("s/npo_rt-seed1", {**NPO, "verbatim": -3.0}, "suppressed", "npo_rt", seed=1,
                  detailed=False),
        ],
        "alarms": {"models": MODELS, "verdicts": words},
        "provenance": {"started": "2026-01-02T03:04:05+00:00", "versions": {"torch": "9.9"},
                       "hardware": {"cpu": "abacus"}, "git": {"commit": "c0ffee" * 6}},
    }  # fmt: skip


def controls():
    def models(card):
        return [tested_rows(card, rows_of(point)) for point in points_of(card)]

    original = {name: tested_rows(name, rows_of(ORIGINAL[name])) for name in CARD_NAMES}
    retained = {name: models(name) for name in CARD_NAMES}
    return {"task": "t", "seed": 0, "original": original, "retained": retained, "about": {}}


def write_audits(folder, **about):
    """Write the study into a folder, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audits.json").write_text(json.dumps(audits(**about)))
    (folder / "controls.json").write_text(json.dumps(controls()))
    return folder
