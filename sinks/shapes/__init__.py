"""What an output sends: pure functions from a notification to bytes, one file a family.

A shape says what it carries. A notification that it has no place for (an alarm for one customer, a customer's ticket
for a trunk) is left out as a whole, and counted; it is never sent with half of its fields.
"""

from sinks.shapes.operations import ALERTMANAGER, pagerduty
from sinks.shapes.orders import TMF622
from sinks.shapes.reading import Shape
from sinks.shapes.salesforce import SALESFORCE_CASE, SALESFORCE_EVENT
from sinks.shapes.samples import samples
from sinks.shapes.servicenow import SERVICENOW_CASE, SERVICENOW_INCIDENT
from sinks.shapes.template import template
from sinks.shapes.tmforum import TMF621, TMF642, TMF683, TMF688

__all__ = ["CLOUDEVENTS", "FIXED", "NAMES", "Shape", "pagerduty", "samples", "template"]

CLOUDEVENTS = Shape("cloudevents", "application/cloudevents+json", lambda notification: notification.body)
"""The notification as it is: CloudEvents 1.0, HTTP binding, section 3.2, structured mode."""

FIXED: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        CLOUDEVENTS,
        TMF621,
        TMF622,
        TMF642,
        TMF683,
        TMF688,
        SALESFORCE_EVENT,
        SALESFORCE_CASE,
        SERVICENOW_INCIDENT,
        SERVICENOW_CASE,
        ALERTMANAGER,
    )
}
"""The shapes that need nothing to be configured."""

NAMES = (*FIXED, "pagerduty", "template")
