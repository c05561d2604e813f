"""Restoration of damaged or missing files of a store from a copy."""

from collections.abc import Sequence

from seit.errors import DamagedError, UsageError
from seit.shards import CARD_NAME, FileRecord, Folder, read_card
from seit.stores.copy import copy_file, is_intact

_PROBED_FILES = 16


class Copy:
    """Copy of a store in ``folder``, perhaps itself not all intact.

    Each method changes the target only by whole files that match a card. It returns None on
    success, else the reason why nothing was restored.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def check_is_copy(self, target: Folder, records: Sequence[FileRecord]) -> None:
        """Refuse a place that holds nothing of the store, such as a mistyped path.

        Raises:
            UsageError: it has neither a card nor any of the first files of ``records``.
        """
        names = (CARD_NAME, *(record.file for record in records[:_PROBED_FILES]))
        if not any(self.folder.exists(name) for name in names):
            raise UsageError(
                f"{self.folder} holds no file of {target}; pass the folder or URL of a copy of the "
                "store"
            )

    def restore(self, target: Folder, record: FileRecord) -> str | None:
        """Restore a file named by the target's card."""
        try:
            copy_file(self.folder, target, record)
        except FileNotFoundError:
            return f"{self.folder} lacks this file"
        except OSError as error:
            return f"the file in {self.folder} cannot be read ({error.strerror or error})"
        except DamagedError:
            return f"the file in {self.folder} is not what the card says either"
        except UsageError as error:
            return str(error)
        return None

    def restore_card(self, target: Folder) -> str | None:
        """Restore the card of a store of which most other files are intact.

        Without this condition, the copy of another store would replace everything.
        """
        try:
            card = read_card(self.folder)
        except (DamagedError, UsageError) as error:
            return str(error)
        intact = sum(is_intact(target, record) for record in card.records)
        if 2 * intact <= len(card.records):
            return (
                f"of the {len(card.records)} files that the card of {self.folder} names, "
                f"{target} holds {intact}: they are not copies of one store"
            )
        target.write(CARD_NAME, card.to_text().encode())
        return None
