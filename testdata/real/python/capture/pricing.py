"""Prices of orders."""
import decimal
import warnings

PRICES = {"kettle": "39.90", "teapot": "24.50", "żółw": "7.00", "カップ": "12.00", "spoon": "1e999"}


def price_of(order):
    try:
        return str(sum(line_total(line) for line in order["lines"]))
    except decimal.InvalidOperation as error:
        raise ValueError(f"order of {order.get('customer')!r} has a price that is no number") from error


def line_total(line):
    if line.get("discount"):
        warnings.warn("'discount' is deprecated, use 'voucher'", DeprecationWarning, stacklevel=2)
    return decimal.Decimal(PRICES[line["item"]]) % 1_000_000 * int(line["count"])
