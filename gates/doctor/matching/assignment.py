"""The best assignment of all names at once: each real object is used once, and the total score is the greatest."""

from collections.abc import Sequence

NONE = -1


def assign(scores: Sequence[Sequence[float]], least: float = 0.0) -> list[int]:
    """For each row the column that it is given, or NONE.

    A pair counts by what its score is above `least`: two poor pairs are no better than one good pair, and a pair of a
    score of `least` or less is never made.

    Source: the Hungarian method with potentials (Kuhn 1955, Munkres 1957), shortest augmenting paths; time is
    rows^2 * columns. Rows may also stay without a column, at no gain.
    """
    rows, real = len(scores), len(scores[0]) if scores else 0
    columns = real + rows  # add one empty column for each row
    costs = [[min(least - s, 0.0) for s in row] + [0.0] * rows for row in scores]
    u, v = [0.0] * (rows + 1), [0.0] * (columns + 1)
    owner, way = [0] * (columns + 1), [0] * (columns + 1)
    for row in range(1, rows + 1):
        owner[0], at = row, 0
        least_slack, used = [float("inf")] * (columns + 1), [False] * (columns + 1)
        while owner[at]:
            used[at] = True
            current, delta, following = owner[at], float("inf"), 0
            for j in range(1, columns + 1):
                if used[j]:
                    continue
                slack = costs[current - 1][j - 1] - u[current] - v[j]
                if slack < least_slack[j]:
                    least_slack[j], way[j] = slack, at
                if least_slack[j] < delta:
                    delta, following = least_slack[j], j
            for j in range(columns + 1):
                if used[j]:
                    u[owner[j]] += delta
                    v[j] -= delta
                else:
                    least_slack[j] -= delta
            at = following
        while at:
            owner[at] = owner[way[at]]
            at = way[at]
    found = [NONE] * rows
    for j in range(1, real + 1):
        if owner[j] and scores[owner[j] - 1][j - 1] > least:
            found[owner[j] - 1] = j - 1
    return found
