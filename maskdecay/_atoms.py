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
        return any(self.find(a) < self._anchored for a in atoms.reshape(-1).tolist())

    def find(self, atom: int) -> int:
        """Returns the representative of the atom's set."""
        parent = self._parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def roots(self, atoms: Atoms) -> Atoms:
        """Returns the representatives of an array of atoms, same shape."""
        flat = [self.find(a) for a in atoms.reshape(-1).tolist()]
        return np.array(flat, dtype=np.int64).reshape(atoms.shape)

    def join(self, left: Atoms, right: Atoms) -> None:
        """Joins two arrays of atoms position by position."""
        if left is right:
            return
        for a, b in zip(left.reshape(-1).tolist(), right.reshape(-1).tolist(), strict=True):
            a, b = self.find(a), self.find(b)
            if a != b:
                self._parent[max(a, b)] = min(a, b)

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
        for atom, reason in self._reasons.items():
            out.setdefault(self.find(atom), reason)
        return out

    def outputs(self) -> set[int]:
        """Returns the representatives of the sets that reach a model output."""
        return {self.find(atom) for atom in self._outputs}
