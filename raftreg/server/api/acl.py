"""/v1/acl: what Consul answers while access control is disabled.

Each endpoint of https://developer.hashicorp.com/consul/api-docs/acl and of the legacy API, with any
body: 401 `ACL support disabled`. Clients know that text; a body is not read, since it may hold a
secret, and a token that comes with any other request is passed over.
"""

from __future__ import annotations

from aiohttp import web

from raftreg.http.operation import operation
from raftreg.http.problems import AclDisabled
from raftreg.server.api.context import Context

#: Methods and path below /v1/acl/.
_ENDPOINTS = (
    ("PUT", "bootstrap"),
    ("GET", "replication"),
    ("POST", "login"),
    ("POST", "logout"),
    ("POST", "authorize"),
    ("POST", "rules/translate"),
    ("GET", "rules/translate/{id}"),
    ("GET", "policies"),
    ("PUT", "policy"),
    ("GET", "policy/name/{name}"),
    ("GET PUT DELETE", "policy/{id}"),
    ("GET", "tokens"),
    ("PUT", "token"),
    ("GET", "token/self"),
    ("PUT", "token/{id}/clone"),
    ("GET PUT DELETE", "token/{id}"),
    ("GET", "roles"),
    ("PUT", "role"),
    ("GET", "role/name/{name}"),
    ("GET PUT DELETE", "role/{id}"),
    ("GET", "auth-methods"),
    ("PUT", "auth-method"),
    ("GET PUT DELETE", "auth-method/{name}"),
    ("GET", "binding-rules"),
    ("PUT", "binding-rule"),
    ("GET PUT DELETE", "binding-rule/{id}"),
    ("GET", "templated-policies"),
    ("GET", "templated-policy/name/{name}"),
    ("POST", "templated-policy/preview/{name}"),
    # The API before Consul 1.4.
    ("PUT", "create"),
    ("PUT", "update"),
    ("PUT", "destroy/{id}"),
    ("GET", "info/{id}"),
    ("PUT", "clone/{id}"),
    ("GET", "list"),
)


class AccessControl:
    """The endpoints of what there is not.

    Args:
        context: The collaborators.
    """

    def __init__(self, context: Context) -> None:
        del context

    def routes(self) -> list[web.RouteDef]:
        """What to mount."""
        return [
            web.route(method, f"/v1/acl/{path}", self.refuse)
            for methods, path in _ENDPOINTS
            for method in methods.split()
        ]

    @operation(
        "Access control: disabled",
        tag="acl",
        also={401: "ACL support disabled"},
    )
    async def refuse(self, request: web.Request) -> web.Response:
        """Always the same."""
        del request
        raise AclDisabled
