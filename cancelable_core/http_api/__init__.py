"""The HTTP API, decided once for every framework: plain values in, plain values out.

An adapter makes an `EndpointRequest` of its framework's request, hands it to `HttpApi.respond` or `HttpApi.arespond`, and sends
the `EndpointResponse` as it is.
"""

from .client_ids import CLIENT_ID_HEADER, canonical_operation_id, is_client_id
from .endpoints import HttpApi
from .exchange import BODY_LIMIT, EndpointRequest, EndpointResponse, Wait
from .parsing import query_pairs
from .payloads import (
    METADATA_FIELD,
    OPERATION_FIELDS,
    STAFF_FIELDS,
    STATISTICS_FIELDS,
    operation_payload,
    statistics_payload,
)
from .policy import (
    NOBODY_STATUSES,
    Action,
    AllowAll,
    AuthorizationPolicy,
    Decision,
    OwnerOrStaff,
    Principal,
    StaffOnly,
    as_principal,
)
from .problems import ProblemCode, cancelled_response, problem_response, queue_full_response, websocket_close_code
from .routing import Route, match_route
from .same_origin import comes_from_same_origin
from .settings import Settings, SettingsOptions, registry_of

__all__ = [
    "BODY_LIMIT",
    "CLIENT_ID_HEADER",
    "METADATA_FIELD",
    "NOBODY_STATUSES",
    "OPERATION_FIELDS",
    "STAFF_FIELDS",
    "STATISTICS_FIELDS",
    "Action",
    "AllowAll",
    "AuthorizationPolicy",
    "Decision",
    "EndpointRequest",
    "EndpointResponse",
    "HttpApi",
    "OwnerOrStaff",
    "Principal",
    "ProblemCode",
    "Route",
    "Settings",
    "SettingsOptions",
    "StaffOnly",
    "Wait",
    "as_principal",
    "cancelled_response",
    "canonical_operation_id",
    "comes_from_same_origin",
    "is_client_id",
    "match_route",
    "operation_payload",
    "problem_response",
    "query_pairs",
    "queue_full_response",
    "registry_of",
    "statistics_payload",
    "websocket_close_code",
]
