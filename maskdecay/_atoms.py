"""Channels as atoms: which of them must live and die together, and which may not die at all.

Every position along every dimension of every parameter is an *atom*. The trace joins the atoms that one
tensor position reads or writes together; what remains joined at the end is one prunable unit.
"""

from __future__ import annotations

import numpy as np

Atoms = np.ndarray
"""Atom numbers of the positions along one dimension, shape (size,), dtype int64."""


class AtomSets:
    """Disjoint sets of atoms (union-find), each with the reasons why it cannot be removed.

    Attributes:
        where: path of the layer that is running; reasons name it.
        undecided: what views held that could be read in two ways.
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._reasons: dict[int, str] = {}
        self._outputs: set[int] = set()
        self._anchored = 0
        self.where = ""
        self.undecided: list[Atoms] = []

    def fresh(self, count: int) -> Atoms:
        """Returns `count` new atoms, each alone in its set."""
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def anchor(self) -> None:
        """Notes that the atoms so far are positions of parameters, and those to come sizes of run-time constants."""
        self._anchored = len(self._parent)

    def anchored(self, atoms: Atoms) -> bool:
        """True where any of the atoms has been joined with a parameter's (which keeps the lowest number)."""
        return bool((self.roots(atoms) < self._anchored).any())

    def roots(self, atoms: Atoms) -> Atoms:
        """Returns the representatives of an array of atoms, same shape."""
        parent, out = self._parent, []
        for atom in atoms.reshape(-1).tolist():
            while parent[atom] != atom:
                parent[atom] = parent[parent[atom]]
                atom = parent[atom]
            out.append(atom)
        return np.array(out, dtype=np.int64).reshape(atoms.shape)

    def join(self, left: Atoms, right: Atoms) -> None:
        """Joins two arrays of atoms position by position."""
        if left is right:
            return
        if left.size != right.size:
            raise ValueError(f"{left.size} channels meet {right.size}")
        a, b = self.roots(left).reshape(-1), self.roots(right).reshape(-1)
        apart, parent = a != b, self._parent
        for one, other in zip(a[apart].tolist(), b[apart].tolist(), strict=True):
            while parent[one] != one:
                one = parent[one]
            while parent[other] != other:
                other = parent[other]
            parent[max(one, other)] = min(one, other)

    def tie(self, rows: Atoms) -> Atoms:
        """Joins the rows of a (copies, size) array, so that the i-th atoms of all rows are one; returns row 0."""
        for row in rows[1:]:
            self.join(rows[0], row)
        return rows[0]

    def refuse(self, atoms: Atoms | None, reason: str) -> None:
        """Notes why these atoms cannot be removed, and in which layer; the first reason given to an atom stays."""
        if atoms is not None:
            place = f" (in layer '{self.where}')" if self.where else ""
            for atom in atoms.reshape(-1).tolist():
                self._reasons.setdefault(atom, reason + place)

    def mark_output(self, atoms: Atoms) -> None:
        """Notes that these atoms are channels of a model output."""
        self._outputs.update(atoms.reshape(-1).tolist())

    def reasons(self) -> dict[int, str]:
        """Returns the first reason in the pass per refused set, keyed by representative, in the order of the pass."""
        out: dict[int, str] = {}
        roots = self.roots(np.array(list(self._reasons), dtype=np.int64)).tolist()
        for root, reason in zip(roots, self._reasons.values(), strict=True):
            out.setdefault(root, reason)
        return out

    def outputs(self) -> set[int]:
        """Returns the representatives of the sets that reach a model output."""
        return set(self.roots(np.array(list(self._outputs), dtype=np.int64)).tolist())
