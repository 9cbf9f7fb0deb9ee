"""Who is let in, per request and per connection: an empty list of principals lets in nobody."""

from collections.abc import Iterable

from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2
from envoy.type.matcher.v3 import path_pb2, regex_pb2, string_pb2

from meshfed.catalog.access import Grant
from meshfed.catalog.model import HttpMatch, Identity

ANY_PATH = ".*"
ANY_METHOD = "*"
# Envoy (1.40) refuses an expression without a character, and the whole route table with it.
NOTHING = "^$"
# /public/../admin and /public/%2e%2e%2fadmin must not pass for something under /public: what an
# application may read as another path satisfies no rule about paths.
AMBIGUOUS = r"(?i).*(/(\.|%2e){1,2}(/.*)?|(%2f|%5c|\\).*)"

Permission = rbac_pb2.Permission
Principal = rbac_pb2.Principal
HeaderMatcher = route_components_pb2.HeaderMatcher


def per_route(grants: Iterable[Grant], trust_domain: str) -> http_rbac_pb2.RBACPerRoute:
    """The next request obeys: routes change without a listener that drains."""
    policies = {
        str(grant.policy): policy(map(permission, grant.http), grant.sources, trust_domain)
        for grant in grants
    }
    return http_rbac_pb2.RBACPerRoute(rbac=http_rbac_pb2.RBAC(rules=rules(policies)))


def per_caller(requests: Iterable[HttpMatch]) -> http_rbac_pb2.RBACPerRoute:
    """What a caller enforces on itself, where the other end has no sidecar."""
    allowed = rbac_pb2.Policy(
        permissions=[permission(match) for match in requests], principals=[Principal(any=True)]
    )
    policies = {"caller": allowed} if allowed.permissions else {}
    return http_rbac_pb2.RBACPerRoute(rbac=http_rbac_pb2.RBAC(rules=rules(policies)))


def per_connection(
    grants: Iterable[Grant], trust_domain: str, stat_prefix: str
) -> network_rbac_pb2.RBAC:
    policies = {
        str(grant.policy): policy([Permission(any=True)], grant.sources, trust_domain)
        for grant in grants
    }
    return network_rbac_pb2.RBAC(rules=rules(policies), stat_prefix=stat_prefix)


def rules(policies: dict[str, rbac_pb2.Policy]) -> rbac_pb2.RBAC:
    return rbac_pb2.RBAC(action=rbac_pb2.RBAC.ALLOW, policies=policies)


def policy(
    permissions: Iterable[Permission], sources: Iterable[Identity], trust_domain: str
) -> rbac_pb2.Policy:
    return rbac_pb2.Policy(
        permissions=list(permissions),
        principals=[principal(source.uri(trust_domain)) for source in sources],
    )


def principal(uri: str) -> Principal:
    exact = string_pb2.StringMatcher(exact=uri)
    return Principal(authenticated=Principal.Authenticated(principal_name=exact))


def permission(match: HttpMatch) -> Permission:
    """All conditions of a match must hold."""
    conditions = [Permission(header=header) for header in headers(match)]
    if match.path_regex != ANY_PATH:
        conditions.append(url_path(match.path_regex))
        conditions.append(Permission(not_rule=url_path(AMBIGUOUS)))
    methods = [Permission(header=method(name)) for name in named_methods(match)]
    if methods:
        conditions.append(Permission(or_rules=Permission.Set(rules=methods)))
    if not conditions:
        return Permission(any=True)
    return Permission(and_rules=Permission.Set(rules=conditions))


def url_path(expression: str) -> Permission:
    """The whole path, without the query."""
    path = path_pb2.PathMatcher(path=string_pb2.StringMatcher(safe_regex=regex(expression)))
    return Permission(url_path=path)


def regex(expression: str) -> regex_pb2.RegexMatcher:
    return regex_pb2.RegexMatcher(regex=expression or NOTHING)


def named_methods(match: HttpMatch) -> list[str]:
    return [] if ANY_METHOD in match.methods else sorted(match.methods)


def method(name: str) -> HeaderMatcher:
    return HeaderMatcher(name=":method", string_match=string_pb2.StringMatcher(exact=name))


def headers(match: HttpMatch) -> list[HeaderMatcher]:
    return [
        HeaderMatcher(
            # HTTP/2 and Envoy know `host` by its pseudo-header.
            name=":authority" if name.lower() == "host" else name.lower(),
            string_match=string_pb2.StringMatcher(safe_regex=regex(expression)),
        )
        for name, expression in sorted(match.headers)
    ]
