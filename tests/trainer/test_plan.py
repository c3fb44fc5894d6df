"""The plan of a run: which rows each step reads, in which order, beside which partners."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npo_kit.errors import KitError
from npo_kit.models.batching import length_sorted
from npo_kit.trainer.plan import paired_batches, shuffled_buckets

many_lengths = st.lists(st.integers(1, 500), max_size=80)
seeds = st.integers(0, 10**6)


@settings(max_examples=80, deadline=None)
@given(lengths=many_lengths, batch_size=st.integers(1, 40), seed=seeds)
def test_shuffled_buckets_is_a_permutation(lengths, batch_size, seed):
    order = shuffled_buckets(lengths, batch_size, random.Random(seed))
    assert sorted(order) == list(range(len(lengths)))


@settings(max_examples=60, deadline=None)
@given(lengths=many_lengths, batch_size=st.integers(1, 40))
def test_length_sorted_batches_hold_every_row_once_from_long_to_short(lengths, batch_size):
    batches = length_sorted(lengths, batch_size)
    order = [row for batch in batches for row in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[row] for row in order] == sorted(lengths, reverse=True)
    assert all(len(batch) == batch_size for batch in batches[:-1])


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 30),
    population=st.integers(1, 90),
    batch_size=st.integers(1, 12),
    epochs=st.sampled_from([0.5, 1, 1.5, 2, 3, 0.1]),
    seed=seeds,
)
def test_paired_batches_keep_their_promises(n, population, batch_size, epochs, seed):
    rng = random.Random(seed)
    lengths, partner_lengths = (
        [rng.randint(1, 99) for _ in range(size)] for size in (n, population)
    )
    batches = paired_batches(
        lengths, partner_lengths, batch_size=batch_size, epochs=epochs, seed=seed
    )
    assert len(batches) == math.floor(round(epochs * n, 6) / batch_size)
    assert all(len(rows) == len(partners) == batch_size for rows, partners in batches)
    rows = [row for batch, _ in batches for row in batch]
    partners = [partner for _, batch in batches for partner in batch]
    for start in range(0, len(rows), n):  # an epoch, or what was run of it
        epoch, theirs = rows[start : start + n], partners[start : start + n]
        assert len(set(epoch)) == len(epoch)
        counts = Counter(theirs)
        assert max(counts.values()) <= math.ceil(n / population)
        if len(epoch) == n:
            assert set(epoch) == set(range(n))
            assert min(counts[p] for p in range(population)) >= n // population


def test_batches_hang_on_the_seed_alone():
    lengths, partner_lengths = list(range(10, 50)), list(range(20, 400))

    def batches(seed):
        return paired_batches(lengths, partner_lengths, batch_size=8, epochs=3, seed=seed)

    assert batches(0) == batches(0)
    assert batches(0) != batches(1)
    rows, partners = ([batch[k] for batch in batches(0)] for k in (0, 1))
    assert rows[:5] != rows[5:10]  # each epoch another order
    assert {p for b in partners[:5] for p in b} != {p for b in partners[5:10] for p in b}


def test_rows_without_partners_come_alone_and_no_partners_is_an_error():
    batches = paired_batches([3] * 7, None, batch_size=2, epochs=2, seed=0)
    assert len(batches) == 7
    assert all(partners == [] for _, partners in batches)
    assert Counter(row for rows, _ in batches for row in rows) == dict.fromkeys(range(7), 2)
    with pytest.raises(KitError, match="give retain rows"):
        paired_batches([3] * 7, [], batch_size=2, epochs=2, seed=0)


def padded(lengths, batches):
    """Tokens of padding as a share of all tokens."""
    full = sum(max(lengths[row] for row in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths[row] for batch in batches for row in batch) / full


def test_buckets_pad_far_less_than_a_random_order_and_match_partners_by_length():
    rng = random.Random(0)
    lengths = [int(rng.lognormvariate(4, 0.8)) + 1 for _ in range(400)]  # skewed, as real answers
    partner_lengths = [int(rng.lognormvariate(4, 0.8)) + 1 for _ in range(1600)]
    batches = paired_batches(lengths, partner_lengths, batch_size=8, epochs=4, seed=0)
    chance = list(range(400))
    rng.shuffle(chance)
    random_order = [chance[i : i + 8] for i in range(0, 400, 8)]
    ours = padded(lengths, [rows for rows, _ in batches])
    assert ours < 0.6 * padded(lengths, random_order)
    assert padded(partner_lengths, [partners for _, partners in batches]) < 1.2 * ours
    gaps = [
        abs(lengths[row] - partner_lengths[partner])
        for rows, partners in batches
        for row, partner in zip(rows, partners, strict=True)
    ]
    by_chance = [abs(a - b) for a in lengths for b in partner_lengths]
    assert sum(gaps) / len(gaps) < 0.5 * sum(by_chance) / len(by_chance)


def test_bucketed_batches_still_mix_rows():
    """Over many epochs, rows of like length meet many others: buckets are not fixed."""
    lengths = [10] * 20 + [50] * 20
    met = {row: set() for row in range(40)}
    for rows, _ in paired_batches(lengths, None, batch_size=4, epochs=40, seed=0):
        for row in rows:
            met[row].update(rows)
    assert min(len(others) for others in met.values()) >= 20
