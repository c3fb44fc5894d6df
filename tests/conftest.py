"""Small models and rows that the tests share: made here, seeded, offline."""

import os
from urllib.parse import urlsplit

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # these models are small: threads only wait

import pytest
from browser import READY, browser, chromium, patient, served
from hypothesis import settings

from npo_kit.data.tasks import Task

# The same examples in every run, however long one takes on a busy machine.
settings.register_profile("kit", derandomize=True, deadline=None)
settings.load_profile("kit")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers(config):
    """Two processes for all the tests; for those that somebody names none, to be looked into."""
    return 0 if config.option.file_or_dir or config.option.keyword else 2


QUESTIONS = [
    ("Who painted the harbour?", "Ana Brook painted the harbour in the spring."),
    ("Where was Ana Brook born?", "She was born in Porto."),
    ("Which prize did she win?", "Ana Brook won the Silver Quill prize for her second book."),
    ("Who is her mentor?", "Her mentor is the poet Iver Dahl."),
    ("When did she publish?", "In 1987."),
    ("What does Ana Brook collect?", "She collects old maps of rivers and small brass bells."),
    ("Who wrote the winter song?", "Iver Dahl wrote it."),
    ("Where does Iver Dahl live?", "He lives near Bergen with two cats."),
    ("What is his first book?", "The first book of Iver Dahl is called Salt and Snow."),
    ("Which colour does he like?", "Green."),
    ("Who taught Iver Dahl?", "A sailor taught him to read when he was nine years old."),
    ("What does he fear?", "He fears deep water and long letters."),
]


def make_tokenizer():
    """A byte-level BPE with a space kept at the start of words, as GPT-2's and Llama 3's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(
        [f"Question: {q}\nAnswer: {a}" for q, a in QUESTIONS] * 3, trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def make_model(vocabulary: int, seed: int = 0, **options):
    """A Llama of two layers and random weights large enough to say different things."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        bos_token_id=0,
        eos_token_id=1,
        **options,
    )
    return LlamaForCausalLM(config).eval()


def make_row(number: int) -> dict:
    question, answer = QUESTIONS[number % len(QUESTIONS)]
    others = [QUESTIONS[(number + k) % len(QUESTIONS)][1] for k in range(1, 4)]
    return {
        "question": question,
        "answer": answer,
        "paraphrased_answer": "Indeed: " + answer,
        "perturbed_answer": others,
    }


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def model(tokenizer):
    return make_model(len(tokenizer))


def make_task() -> Task:
    """Four rows to forget, eight to keep, and evaluation sets of 4, 4, 2 and 2 rows."""
    rows = [make_row(number) for number in range(len(QUESTIONS))]
    return Task(
        name="test:forget",
        forget=rows[8:],
        retain=rows[:8],
        evaluation={
            "forget": rows[8:],
            "retain": rows[:4],
            "real_authors": rows[4:6],
            "world_facts": rows[6:8],
        },
    )


@pytest.fixture(scope="session")
def task() -> Task:
    return make_task()


# --- the page in a browser ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def window():
    chromium()
    with browser() as made:
        yield made


@pytest.fixture(scope="module")
def pocket():
    """The recorded study of the kit."""
    with served() as (address, _):
        yield address


@pytest.fixture
def visit(window):
    """Opens an address in a fresh context; afterwards nothing may have gone wrong or abroad."""
    contexts, problems, hosts = [], [], set()

    def opened(address, **options):
        usual = {"viewport": {"width": 1280, "height": 900}, "accept_downloads": True}
        options = usual | {"reduced_motion": "reduce"} | options  # else it plays on a first visit
        contexts.append(patient(window.new_context(**options)))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("request", lambda request: hosts.add(urlsplit(request.url)))
        page.goto(address)
        page.wait_for_selector(READY)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []
    assert {host.hostname for host in hosts if host.scheme.startswith(("http", "ws"))} == {
        "127.0.0.1"
    }
