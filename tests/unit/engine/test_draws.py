import hashlib

from llamakit.engine.draws import uniform


def test_a_number_depends_on_its_place_only():
    # The definition itself, so that a seed means the same in every version.
    place = (7).to_bytes(8, "little") + (1).to_bytes(8, "little") + (3).to_bytes(8, "little")
    expected = int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "little") // 2**11 / 2**53
    assert uniform(7, 1, 3) == expected == uniform(7, 1, 3)


def test_neighbouring_places_are_unrelated():
    numbers = {uniform(seed, choice, position) for seed in range(8) for choice in range(8) for position in range(8)}
    assert len(numbers) == 512


def test_every_seed_that_a_request_may_name_works():
    for seed in (-(2**63), -1, 0, 2**63, 2**64 - 1):
        assert 0.0 <= uniform(seed, 0, 0) < 1.0


def test_numbers_are_spread_evenly():
    counts = [0] * 20
    for position in range(20_000):
        counts[int(uniform(11, 0, position) * 20)] += 1
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts)
    assert chi_square < 43.8  # 19 degrees of freedom, p = 0.001
