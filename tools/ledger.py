"""A session's evidence and decisions in order: each on disk before it is used, and none written twice."""

from __future__ import annotations

from collections.abc import Iterable

from tools.contracts import Decision, Evidence
from tools.journal import Journal


class Ledger:
    """What a session used and decided.

    Args:
        journal: where it is written; None when a session is replayed and nothing is.
        evidence: ids that the journal has already.
        decisions: that the journal has already, and that stand.
    """

    def __init__(
        self, journal: Journal | None, *, evidence: Iterable[str] = (), decisions: Iterable[Decision] = ()
    ) -> None:
        self.journal = journal
        self.evidence: list[Evidence] = []
        """Everything this run of the session used so far, in the order of its first use."""
        self.decisions: list[Decision] = []
        """Everything it decided so far."""
        self._written = set(evidence)
        self._standing = {decision.id: decision for decision in decisions}
        self._interrupted = False

    def use(self, evidence: Evidence) -> None:
        """Note that evidence is about to be used.

        Raises:
            StorageError: the journal cannot be written.
        """
        self.evidence.append(evidence)
        if self.journal is not None and evidence.id not in self._written:
            self._written.add(evidence.id)
            entry = {
                "id": evidence.id,
                "question": evidence.question,
                "kind": evidence.kind,
                "recipe": evidence.recipe.name,
            }
            self.journal.append("evidence", entry)

    def decide(self, decision: Decision) -> None:
        """Write a decision, unless it stands in the journal already.

        Raises:
            StorageError: the journal cannot be written.
        """
        self.decisions.append(decision)
        if self.journal is not None and self._standing.get(decision.id) != decision:
            self.journal.append("decision", decision.model_dump(mode="json"))

    def interrupt(self) -> None:
        """Note, once, that a person is stopping the session: what it decides from here on is provisional."""
        if self.journal is not None and not self._interrupted:
            self.journal.append("interrupted", {"decisions": len(self.decisions)})
        self._interrupted = True

    def note(self, text: str) -> None:
        """Note something that a person should know."""
        if self.journal is not None:
            self.journal.append("note", {"text": text})
