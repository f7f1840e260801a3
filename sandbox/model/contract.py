"""The parties of the contract that a mailbox is for, as the user states them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sandbox.model import names
from sandbox.model.schema import Reader


@dataclass(frozen=True)
class Contract:
    """Names for the certificate: who gave the order for processing, who took it, under what."""

    controller: str = ""
    processor: str = ""
    reference: str = ""


def read_contract(reader: Reader) -> Contract:
    """The `[contract]` table; each entry may be left out."""
    contract = Contract(
        controller=reader.checked("controller", names.text_problem, ""),
        processor=reader.checked("processor", names.text_problem, ""),
        reference=reader.checked("reference", names.text_problem, ""),
    )
    reader.finish()
    return contract


def write_contract(contract: Contract) -> dict[str, str]:
    """The table with what was stated."""
    return {key: value for key, value in asdict(contract).items() if value}
