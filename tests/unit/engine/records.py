"""Records of batches, as short as a test wants to write them."""

from distilabel_dagster.batch import BatchRecord, Source


def make_batches(
    *sizes: int, last: bool = True, routed_to: dict[int, tuple[str, ...]] | None = None
) -> list[BatchRecord]:
    """Batches of a step without predecessors."""
    return [
        BatchRecord(
            seq_no=seq_no,
            size=size,
            last_batch=last and seq_no == len(sizes) - 1,
            batch_routed_to=(routed_to or {}).get(seq_no, ()),
        )
        for seq_no, size in enumerate(sizes)
    ]


def make_batch(
    seq_no: int,
    size: int,
    *,
    last: bool = False,
    revision: int = 0,
    errors: dict[int, str] | None = None,
    **sources: list[tuple[int, ...]],
) -> BatchRecord:
    """A batch made of `predecessor=[(seq_no, size, rows_used, revision)]`."""
    created_from = {name: [Source(*each) for each in taken] for name, taken in sources.items()}
    return BatchRecord(seq_no, size, last, created_from or None, (), revision, errors)
