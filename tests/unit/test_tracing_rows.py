"""Rows by ids that only grow."""

import numpy as np

from hostlerd.tracing.kernel.capture.rows import Rows


def test_a_row_is_found_by_its_id_until_it_is_let_go():
    rows = Rows("<u4")
    for number in range(1, 3000):
        rows[number] = number * 10
    assert rows[2999] == 29990
    assert rows.rows(np.array([0, 1, 2999, 5000], "<u4")).tolist() == [0, 1, 2999, 0]
    rows.forget(below=2990)
    found = rows.table()[rows.rows(np.array([1, 2989, 2990, 2999], "<u4"))]
    assert found.tolist() == [0, 0, 29900, 29990]
    assert rows[2989] == 0
    rows.put({2989: 1, 2990: 5})
    assert (rows[2989], rows[2990]) == (0, 5)
    rows.put({2990: 29900, 2999: 29990})
    rows[3000] = 7
    assert rows.table().tolist() == [0, *range(29900, 30000, 10), 7]
    rows.forget(below=9000)
    assert len(rows.table()) == 1
    rows[9000] = 1
    assert rows.rows(np.array([8999, 9000], "<u4")).tolist() == [0, 1]
