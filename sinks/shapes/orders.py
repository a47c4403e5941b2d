"""TM Forum TMF622 Product Ordering: an accepted remedy as an order.

Source: TMF622 Product Ordering Management v4.0.0, ProductOrder_Create; its required fields are `productOrderItem` and,
of each item, `id` and `action`. Applied billing rates are read-only in TMF678, so a credit is ordered too: as a one-off
discount whose price is negative (ProductPrice, `priceType` "nonRecurring").

Orders leave with the notification of the case that they belong to; notifications without an order are left out. A
repeat carries the same `externalId`: a receiver that knows it has the order already.
"""

from typing import Any

from schemas.alerts import Alert, Credit, Notification, Order, rfc3339
from schemas.money import decimals
from sinks.shapes.reading import JSON, SYSTEM, Message, Shape, encode, read

OFFERING: str = "stayline-{remedy_id}"
"""Id of the product offering that a carrier's catalogue (TMF620) has for a remedy."""


def _order(message: Message, alert: Alert, order: Order) -> dict[str, Any]:
    return {
        "@type": "ProductOrder",
        "externalId": order.order_id,
        "category": "retention",
        "description": f"{order.title}. {alert.pattern.text}",
        "priority": {"critical": "1", "major": "2", "minor": "3"}[alert.severity],
        "requestedStartDate": rfc3339(order.ordered_ms),
        "relatedParty": _parties(alert, order),
        "note": _notes(message, order),
        "productOrderItem": [_item(order)],
    }


def _parties(alert: Alert, order: Order) -> list[dict[str, Any]]:
    parties = [(alert.customer_id, "customer", "Customer")]
    if order.partner_id is not None:
        parties.append((order.partner_id, "fulfilmentPartner", "Organization"))
    return [
        {"id": one, "role": role, "@type": "RelatedParty", "@referredType": referred} for one, role, referred in parties
    ]


def _notes(message: Message, order: Order) -> list[dict[str, Any]]:
    texts = [f"case {message.case}, notification {message.id}"]
    if order.needs_approval:
        texts.append("Not to be carried out before a supervisor has approved it.")
    if order.credit is not None:
        texts.append(order.credit.basis)
    if order.credit is not None and order.credit.calls:
        texts.append(f"calls: {', '.join(order.credit.calls)}")
    return [
        {"@type": "Note", "id": str(rank), "author": SYSTEM, "date": rfc3339(order.ordered_ms), "text": text}
        for rank, text in enumerate(texts, start=1)
    ]


def _item(order: Order) -> dict[str, Any]:
    return {
        "@type": "ProductOrderItem",
        "id": "1",
        "action": "add",
        "quantity": 1,
        "state": "held" if order.needs_approval else "acknowledged",
        "productOffering": {
            "@type": "ProductOfferingRef",
            "id": OFFERING.format(remedy_id=order.remedy_id),
            "name": order.title,
        },
        "itemPrice": None if order.credit is None else [_discount(order.credit)],
    }


def _discount(credit: Credit) -> dict[str, Any]:
    value = -credit.amount_minor / 10 ** decimals(credit.currency)
    return {
        "@type": "OrderPrice",
        "name": "credit for bad calls" if credit.calls else "credit for a loss of service",
        "priceType": "nonRecurring",
        "price": {"@type": "Price", "taxIncludedAmount": {"unit": credit.currency, "value": value}},
    }


def _render(notification: Notification) -> bytes | None:
    message = read(notification)
    if not isinstance(message.data, Alert) or message.data.order is None:
        return None
    return encode(_order(message, message.data, message.data.order))


TMF622 = Shape("tmf622", JSON, _render)
