"""The views that people ask: the catalog's public interface, the same in both databases.

Removing or renaming a column breaks somebody's query: it is a breaking change. Times are ISO-8601
text in UTC, lists are joined by ", ", and what is unknown is null or empty.
"""

from meshfed.catalog.histories import HISTORIES
from meshfed.catalog.preferences import RELATIONS
from meshfed.catalog.spelling import SILENT, listed, lived, since, view

# Columns that are true or false; SQLite has 1 and 0.
FLAGS = frozenset({"mtls", "plaintext", "stale"})

STANDING = "endpoints e where e.valid_to_revision is null and not e.outranked"
OF_SERVICE = f"{STANDING} and e.service = s.service"
OF_WORKLOAD = f"{STANDING} and e.workload = w.workload"
OF_SCOPE = (
    "endpoints e where e.valid_to_revision is null"
    " and e.provider = s.provider and e.scope = s.scope"
)
ITS_PORTS = (
    "(select $list(label, ', ') from (select cast(number as text)"
    " || case when name = '' then '' else '/' || name end as label"
    " from ports where ports.service = s.service order by number) as listed)"
)
DIALLED = (
    "case when e.address like '%:%' then '[' || e.address || ']' else e.address end || ':'"
    " || case when e.interception in ('none', 'grpc') then cast(e.target as text) else '15003' end"
)
IS_SILENT = "r.seen_at is null or r.seen_at < $silent"
PROXY_STATE = f"case when {IS_SILENT} then 'silent' else p.state end"
PROXY_REASON = (
    f"case when p.proxy is not null and ({IS_SILENT}) then 'its replica ' || p.replica"
    " || ' wrote nothing since ' || coalesce(r.seen_at, 'ever') else p.reason end"
)
# A proxy that came back well, to another replica say, may have been sent nothing since: then no
# answer took the place of what it rejected on a stream of before. Its reason names what stands,
# `TYPE: words` after each "; ", which words have none of.
ANSWERED = (
    "(y.nack is null or p.state = 'rejecting'"
    " and ('; ' || p.reason) like ('%; ' || y.type || ': %'))"
)
# Replicas of schema 0012c know no class, and write rows for each proxy: until the next release.
# `class` is no sign of them: they leave what a replica of this schema wrote there.
REACHED = (
    "select p.proxy, k.cluster, k.service, k.priority, k.endpoints, k.version"
    " from proxies p join class_clusters k on k.replica = p.replica and k.class = p.class"
    " union all"
    " select p.proxy, k.cluster, k.service, k.priority, k.endpoints, k.version"
    " from proxies p join proxy_clusters k on k.proxy = p.proxy"
)
WORKLOAD_STATE = (
    "case when w.interception = 'none' then 'no sidecar'"
    f" when p.proxy is null then 'not connected' when {IS_SILENT} then 'silent' else p.state end"
)
EXISTING = "join services s on s.service = o.backend and s.valid_to_revision is null"
TOTAL = f"(select sum(o.weight) from shares o {EXISTING} where o.policy = h.policy)"
PERCENTAGE = (
    "case when s.service is not null"
    f" then cast(100.0 * h.weight / nullif({TOTAL}, 0) as double precision) end"
)
GRANTED = "select source, destination, layer, port, methods, path, headers, policy from grants"
PERMITTED = (  # every destination, while everyone may call everyone
    "select '*', e.identity, l.layer, 0, l.methods, l.path, '', 'permissive'"
    f" from (select distinct e.identity from {STANDING}) e,"
    " (select 'http' as layer, '*' as methods, '.*' as path union all select 'tcp', '', '') l,"
    " state where state.permissive"
)
FIRST_END = (
    "(select min(c.not_after) from certificates c"
    " where c.identity = i.identity and c.state <> 'retired')"
)
# Its first place among what its service prefers; what depends on the caller goes before or not.
PREFERRED = (
    f"(select case when min(case when r.term in {RELATIONS} then r.position end)"
    " < coalesce(min(case when r.term in (e.provider, e.platform) then r.position end),"
    " count(nullif(r.term, ''))) then null else"
    " coalesce(min(case when r.term in (e.provider, e.platform) then r.position end),"
    " count(nullif(r.term, ''))) end from preferences r"
    " where r.service = coalesce((select min(o.service) from preferences o"
    " where o.service = e.service), ''))"
)
ENDPOINT = (
    ("service", "e.service", "The service it answers for, <name>.<namespace>"),
    ("address", "e.address", "Its IP address"),
    ("port", "e.target", "The application's port at that address"),
    ("reached_at", DIALLED, "What callers dial: the sidecar; without one, the application"),
    ("platform", "e.platform", "kubernetes, azure, vm or host"),
    ("provider", "e.provider", "The provider that sees it"),
    ("scope", "e.scope", "The part of the platform that the provider saw it in"),
    ("cluster", "e.cluster", "The Kubernetes cluster it is in; empty: none"),
    ("network", "e.network", "The network it can be reached in; empty: every one"),
    ("region", "e.region", "The first part of its locality"),
    ("zone", "e.zone", "The second part of its locality"),
    ("weight", "e.weight", "Its share of the calls, relative to its neighbours"),
    (
        "priority",
        PREFERRED,
        "Its place in `federation.prefer`: 0 goes first; null: it depends on the caller",
    ),
    ("health", "e.health", "healthy, unhealthy, draining or unknown"),
    ("health_reason", "e.health_reason", "Why it is not healthy"),
    ("identity", "e.identity", "Who answers, <account>.<namespace>; empty: nobody known"),
    ("workload", "w.name", "The pod, VM or host it is on"),
    (
        "interception",
        "e.interception",
        "How calls get into its sidecar; none, grpc: it has none",
    ),
    ("mtls", "(e.interception <> 'none')", "Whether callers reach it by mutual TLS"),
    ("stale", "e.stale", "Whether it is kept though its provider did not show it lately"),
)
# Rules came and went while a version stood: those of its time are in mesh_changes.
THEN = tuple(
    (name, "cast(null as bigint)", "Not kept: ask mesh_endpoints of that moment, with --at")
    if name == "priority"
    else (name, sql, comment)
    for name, sql, comment in ENDPOINT
)

VIEWS = (
    view(
        "mesh_services",
        "Services: what callers name. One row each, the union of what providers say of it",
        "services s where s.valid_to_revision is null",
        ("service", "s.service", "<name>.<namespace>"),
        ("namespace", "$namespace", "The part after the dot"),
        ("name", "$name", "The part before the dot"),
        ("ports", f"coalesce({ITS_PORTS}, '')", "Its ports by number, with their names"),
        ("protocol", listed("protocol", "ports where ports.service = s.service"),
         "What is spoken there: http, http2, grpc, tcp, tcp-server-first, https"),
        ("vip", "s.vip", "The virtual IP that its platform has for it; empty: none"),
        ("platforms", listed("e.platform", OF_SERVICE), "The platforms its endpoints are on"),
        ("endpoints", f"(select count(*) from {OF_SERVICE})", "How many endpoints it has"),
        ("healthy", f"(select count(*) from {OF_SERVICE} and e.health = 'healthy')",
         "How many of them are healthy"),
        ("identities", listed("e.identity", f"{OF_SERVICE} and e.identity <> ''"),
         "Who answers for it"),
        ("plaintext", "s.plaintext", "Whether endpoints without a sidecar may be called in clear"),
        *since("s"),
    ),
    view(
        "mesh_virtual_ips",
        "The mesh's own addresses for services that no platform gives one",
        "services s where s.valid_to_revision is null and s.virtual_ips <> ''",
        ("service", "s.service", "<name>.<namespace>; <name>.<namespace>.mesh stands for them"),
        ("addresses", "s.virtual_ips", "One of each of `mesh.virtual_ranges`"),
        *since("s"),
    ),
    view(
        "mesh_endpoints",
        "Endpoints: every address and port that answers for a service now",
        "endpoints e left join workloads w on w.workload = e.workload"
        " and w.scope = e.scope and w.valid_to_revision is null"
        " left join scopes s on s.provider = e.provider and s.scope = e.scope"
        " where e.valid_to_revision is null and not e.outranked",
        *ENDPOINT,
        ("doubt", "case when e.stale then coalesce(s.doubt, '') else '' end",
         "Why it is kept, where it is stale"),
        ("conflict", "e.conflict", "Who else claims this endpoint"),
        *since("e"),
    ),
    view(
        "mesh_endpoint_history",
        "Every endpoint as it was at any time: a row a version, until valid_to (null: still)",
        "endpoints e left join workloads w on w.id = (select max(id) from workloads v"
        " where v.workload = e.workload) where not e.outranked",
        *THEN,
        ("doubt", "e.doubt", "Why it was kept, where it was stale"),
        ("conflict", "e.conflict", "Who else claimed this endpoint"),
        *since("e"),
        *lived("e"),
    ),
    view(
        "mesh_workloads",
        "Workloads: pods, VMs and hosts, with the proxy of each",
        "workloads w left join proxies p on p.proxy = w.workload"
        " left join replicas r on r.replica = p.replica"
        " left join joined j on j.workload = w.workload where w.valid_to_revision is null"
        # A pod of several services is told in the scope of each.
        " and w.id = (select max(v.id) from workloads v"
        " where v.workload = w.workload and v.valid_to_revision is null)",
        ("name", "w.name", "Its name on its platform"),
        ("platform", "w.platform", "kubernetes, azure, vm or host"),
        ("resource_id", "w.resource_id", "Its id on its platform"),
        ("identity", "w.identity", "Who it is, <account>.<namespace>"),
        ("services", listed("e.service", OF_WORKLOAD), "The services it answers for"),
        ("addresses", "w.addresses", "Its addresses"),
        ("joined_by", "j.token", "The token it joined with; null: it did not join by itself"),
        ("joined_at", "j.joined_at", "When it joined"),
        ("lease_until", "nullif(j.lease_until, '')",
         "Until when its agent's word holds; null: it has none"),
        ("proxy", "p.proxy", "The id of its proxy, while one is connected"),
        ("state", WORKLOAD_STATE,
         "synced, behind, rejecting, expiring, silent; not connected; or no sidecar"),
        ("reason", PROXY_REASON, "Why it is in that state"),
    ),
    view(
        "mesh_policies",
        "Policies as written, the rejected ones too",
        "policies p where p.valid_to_revision is null",
        ("kind", "p.kind", "TrafficTarget, HTTPRouteGroup, TCPRoute or TrafficSplit"),
        ("namespace", "p.namespace", "Its namespace"),
        ("name", "p.name", "Its name"),
        ("source", "p.source", "The source of the specification it comes from"),
        ("state", "p.state",
         "accepted: in force; rejected: wrong; shadowed: another source has it too"),
        ("field", "p.field", "The field that is wrong"),
        ("reason", "p.reason", "What is wrong with it, where it stands, and what holds instead"),
        ("revision", "p.valid_from_revision", "The revision that made it so"),
    ),
    view(
        "mesh_access",
        "Who may call what, and by which policy: what is not here is denied",
        f"({GRANTED} union all {PERMITTED}) g join (select distinct e.service, e.port, e.identity"
        f" from {STANDING}) d on d.identity = g.destination"
        " join ports p on p.service = d.service and p.number = d.port"
        " where (g.port = 0 or g.port = p.number)"
        " and (g.layer = 'http') = (p.protocol in ('http', 'http2', 'grpc'))",
        ("source_identity", "g.source", "Who may call; *: everybody in the mesh"),
        ("destination_service", "d.service", "The service that may be called"),
        ("destination_identity", "g.destination", "Who may answer"),
        ("protocol", "p.protocol", "What is spoken on that port"),
        ("port", "p.number", "The service's port"),
        ("methods", "g.methods", "The HTTP methods allowed; *: all; empty: not HTTP"),
        ("path", "g.path", "The regular expression that the whole path must match"),
        ("headers", "g.headers", "The headers that must be there, as name: expression"),
        ("policy", "g.policy",
         "The TrafficTarget that allows it, <namespace>/<name>; permissive: mesh.permissive does"),
    ),
    view(
        "mesh_splits",
        "How calls to a service are split over others",
        "shares h left join services s on s.service = h.backend and s.valid_to_revision is null",
        ("service", "h.service", "The service that is called"),
        ("backend", "h.backend", "The service that answers"),
        ("weight", "h.weight", "Its weight in the policy"),
        ("share", PERCENTAGE,
         "That in percent of the backends that exist; null where it does not, or all weigh 0"),
        ("matches", "h.matches", "The HTTPRouteGroups it is limited to; empty: every call"),
        ("policy", "h.policy", "The TrafficSplit, <namespace>/<name>"),
    ),
    view(
        "mesh_identities",
        "Identities: who is in the mesh",
        f"(select e.identity from {STANDING} union select identity from workloads"
        " where valid_to_revision is null) i where i.identity <> ''",
        ("identity", "i.identity", "<account>.<namespace>"),
        ("services", listed("e.service", f"{STANDING} and e.identity = i.identity"),
         "The services it answers for"),
        ("workloads", listed("w.name",
         "workloads w where w.valid_to_revision is null and w.identity = i.identity"),
         "The workloads that run as it"),
        ("certificate_not_after", FIRST_END,
         "When the first of its certificates ends"),
    ),
    view(
        "mesh_certificates",
        "The certificate each identity has on behalf of each of its services",
        "certificates c",
        ("identity", "c.identity", "Whose it is"),
        ("service", "c.service", "The service it was asked for"),
        ("issuer", "c.issuer", "Who signed it"),
        ("state", "c.state",
         "unclaimed: no proxy has it yet; claimed: one has; retired: the service is gone"),
        ("serial", "c.serial", "Its serial number"),
        ("not_before", "c.not_before", "When it begins to be valid"),
        ("not_after", "c.not_after", "When it ends"),
    ),
    view(
        "mesh_proxies",
        "The Envoys that are connected",
        "proxies p left join replicas r on r.replica = p.replica",
        ("proxy", "p.proxy", "Its id: the workload's, 16 hexadecimal digits"),
        ("identity", "p.identity", "The identity in its certificate"),
        ("workload", "p.workload", "The name of the workload it serves"),
        ("replica", "p.replica", "The control plane replica it is connected to"),
        ("connected_since", "p.connected_since", "When it connected"),
        ("state", PROXY_STATE,
         f"synced; behind; rejecting; expiring: a certificate; silent: no word for {SILENT} s"),
        ("reason", PROXY_REASON,
         "Why it is in that state; of one that is behind, when that has lasted for 30 s"),
        ("envoy_version", "p.envoy_version", "The version of Envoy, or of gRPC, it says it is"),
    ),
    view(
        "mesh_proxy_sync",
        "What each connected proxy was sent last of each type, and what it answered",
        "proxy_sync y join proxies p on p.proxy = y.proxy"
        f" where {ANSWERED} or y.acked_version is not null",
        ("proxy", "y.proxy", "The proxy's id"),
        ("type", "y.type", "CDS, EDS, LDS, RDS or SDS"),
        ("sent_version", f"case when {ANSWERED} then y.sent_version else y.acked_version end",
         "The version sent last"),
        ("acked_version", "y.acked_version", "The version it accepted last"),
        ("sent_at", f"case when {ANSWERED} then y.sent_at end",
         "When that was sent; null: what was sent after it was rejected, and is sent no more"),
        ("acked_at", "y.acked_at", "When it accepted last"),
        ("nack", f"case when {ANSWERED} then y.nack end",
         "Why it rejected the last one, in its words; null: it did not, or it is well since"),
        ("nack_at", f"case when {ANSWERED} then y.nack_at end", "When it rejected it"),
    ),
    view(
        "mesh_clusters",
        "The clusters each proxy was last sent",
        f"({REACHED}) k",
        ("proxy", "k.proxy", "The proxy's id"),
        ("cluster", "k.cluster", "The cluster's name"),
        ("service", "k.service", "The service it leads to"),
        ("priority", "k.priority", "The priority of these endpoints"),
        ("endpoints", "k.endpoints", "How many endpoints it has there"),
        ("version", "k.version", "The version of its load assignment"),
    ),
    view(
        "mesh_traffic",
        "How many calls went where, a row a minute, as the callers' sidecars report it",
        "traffic t group by"
        " t.minute, t.source_identity, t.service, t.version, t.platform, t.zone",
        ("minute", "t.minute", "When the minute began in which it was reported"),
        ("source_identity", "t.source_identity", "Who called: the identity in its certificate"),
        ("service", "t.service", "The service that it asked for"),
        ("version", "t.version",
         "The backend of a TrafficSplit that it was given; empty: the service itself"),
        ("platform", "t.platform", "Where that was: kubernetes, azure, vm or host"),
        ("zone", "t.zone", "Where that was, <region>/<zone>; empty: none is known"),
        ("requests", "cast(sum(t.requests) as bigint)",
         "The requests that ended, each attempt by itself; of TCP, the connections that began"),
        ("failed", "cast(sum(t.failed) as bigint)",
         "Those of them that were answered with 5xx, or not at all"),
        ("in_flight", "cast(sum(t.in_flight) as bigint)",
         "How many had not ended yet when the minute did; of TCP, the open connections"),
    ),
    view(
        "mesh_providers",
        "How each provider fares, a row a scope; sources of policies are of type specification",
        "scopes s left join orders o on o.provider = s.provider",
        ("provider", "s.provider", "The provider's name"),
        ("type", "s.type", "What kind of provider it is"),
        ("scope", "s.scope", "The part of its platform that is seen whole"),
        ("state", "case when coalesce(o.paused, false) then 'paused' else s.state end",
         "good; doubted: not believed as it stands; failing: no answer; paused: on order"),
        ("last_good", "s.last_good", "When it last gave an answer that was believed"),
        ("age_s", "$age", "How many seconds ago that was"),
        ("endpoints", f"(select count(*) from {OF_SCOPE})",
         "How many endpoints it contributes"),
        ("doubt", "s.doubt", "Why its last answer is not believed"),
        ("reason", "case when s.fault <> '' then s.fault else s.left_out end",
         "Why it fails, or the entries that were left out"),
    ),
    view(
        "mesh_changes",
        "Everything that has happened, in order",
        "changes h",
        ("revision", "h.revision", "The revision it was part of"),
        ("at", "h.at", "When"),
        ("what", "h.what",
         "endpoint, service, workload, policy, provider, attachment, token, join or mesh"),
        ("object", "h.object", "Its name"),
        ("change", "h.change", "What became of it: joined, left, health lost, …"),
        ("provider", "h.provider", "Who saw it; for a policy, its source"),
        ("who", "h.who", "The person who asked for it"),
        ("cause", "h.cause", "What brought it about"),
    ),
    *HISTORIES,
)  # fmt: skip
