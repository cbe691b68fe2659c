"""The schedules of a bookshop, to be looked at before they run.

    tickwork preview examples/bookshop.py --from 2026-03-29 --to 1d

On that Sunday the clocks of Berlin go from 02:00 straight to 03:00: what is due between them starts at 03:00, together
with what is due then anyway.
"""

from tickwork import App

app = App(timezone="Europe/Berlin")


@app.every("30s")
async def poll_payments() -> None:
    """Ask the bank."""


@app.every("15m")
async def sync_stock() -> None:
    """Tell the web site what is left."""


@app.cron("*/30 * * * *")
async def import_orders() -> None:
    """Fetch the orders of the marketplaces; with many of them it takes longer than half an hour."""


@app.cron("0 2 * * *")
def backup_database() -> None:
    """Copy the database."""


@app.cron("30 2 * * *")
def rebuild_search_index() -> None:
    """Build the index anew."""


@app.cron("0 3 * * *")
def close_books() -> None:
    """Sum up the day before."""


@app.cron("0 7 * * *", jitter="1h")
async def send_newsletter() -> None:
    """Write to the customers, not to all at once with every other bookshop."""


@app.every("day", at=["09:00", "12:00", "17:00"])
async def report_sales() -> None:
    """Tell the owner."""


@app.cron("0 9-17 * * *", timezone="America/New_York")
async def ask_supplier() -> None:
    """Ask for new goods, in the supplier's office hours."""


@app.every("sunday", at="04:00")
def remove_old_files() -> None:
    """Tidy up."""


@app.cron("0 6 1 * *")
def send_invoices() -> None:
    """Send what is due at the first of the month."""
