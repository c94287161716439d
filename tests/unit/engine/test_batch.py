from array import array

import torch

from llamakit.engine.batch import Piece, build_batch

CPU = torch.device("cpu")


def test_pieces_lie_one_after_another():
    batch = build_batch(
        [Piece([10, 11, 12], 3, array("q", [5, 2])), Piece(array("q", [20]), 8, array("q", [1, 7, 4, 9]))], 4, CPU
    )
    assert batch.ids_N.tolist() == [10, 11, 12, 20]
    assert batch.positions_N.tolist() == [3, 4, 5, 8]
    assert batch.slots_N.tolist() == [5 * 4 + 3, 2 * 4 + 0, 2 * 4 + 1, 4 * 4 + 0]
    assert batch.starts == batch.attention.query_starts == [0, 3, 4]
    assert batch.attention.context_lens == [6, 9]
    assert batch.max_position == 8


def test_tables_hold_the_blocks_in_use_only():
    # The second sequence holds a block for tokens that are not part of this step.
    batch = build_batch([Piece([1], 0, array("q", [3])), Piece([1], 6, array("q", [1, 2, 8]))], 4, CPU)
    assert batch.attention.block_tables.tolist() == [[3, 0], [1, 2]]
