"""docs/sql.md: what the views mean, from their own comments, and questions people ask of them.

Written by `python -m meshfed.catalog.dictionary > docs/sql.md`; a test keeps the page true.
"""

from collections.abc import Iterator

from meshfed.catalog.spelling import View
from meshfed.catalog.views import VIEWS

OPENING = """\
# Asking the catalog

Everything the mesh knows is in these views, on SQLite and Postgres alike:

```
meshfed sql "select * from mesh_endpoints"
sqlite3 -readonly meshfed.db "select * from mesh_endpoints"
psql postgresql://ann@db/meshfed -c "select * from mesh_endpoints"
```

`meshfed sql` answers one select within 5 seconds and 10,000 rows and cannot change anything.
On Postgres, `meshfed migrate --reader ROLE` gives a person's role the same right: to read the views
and nothing else.

Times are ISO-8601 text in UTC with milliseconds, so they compare as text. An hour ago is
`strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 hour')` for SQLite and
`to_char(now() at time zone 'UTC' - interval '1 hour', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')` for
Postgres.

Yes and no is `true` and `false`: write `where not mtls`, which both databases understand. SQLite
has no type for it and prints 1 and 0; `meshfed get` prints true and false for both. Lists are
joined by `, `. Empty or null is unknown, or none. A revision is the number of a change of the
catalog; it only grows. What was is kept for `history.retain`, 30 days: see
[configuration.md](configuration.md).
Other tables than these views are meshfed's own and change without notice.
"""

# Each is run by a test, on both databases: a line that asks, and the SQL that answers.
ASKED = """\
Which endpoints of a service are on Azure?
select address, port, zone, health from mesh_endpoints
where service = 'bookstore.shop' and platform = 'azure'

Which services are on more than one platform?
select service, platforms, endpoints from mesh_services where platforms like '%, %'

Where do pods find a service that no platform gives an address?
select service, addresses from mesh_virtual_ips where service = 'bookstore.shop'

How many endpoints of each service are in each zone?
select service, region, zone, count(*) as endpoints from mesh_endpoints
group by service, region, zone order by service, region, zone

Who may call a service, and why?
select source_identity, port, methods, path, policy from mesh_access
where destination_service = 'bookstore.shop'

What may one identity call?
select distinct destination_service, port, protocol from mesh_access
where source_identity = 'bookbuyer.shop'

Which endpoints are called without mutual TLS?
select service, reached_at, provider from mesh_endpoints where not mtls

Which services have less than all of their endpoints healthy?
select service, healthy, endpoints from mesh_services where healthy < endpoints

Which endpoints are kept although their provider does not show them, and why?
select service, address, provider, doubt from mesh_endpoints where stale

Which endpoint do two providers claim?
select service, address, provider, conflict from mesh_endpoints where conflict <> ''

What was in a service's pool at 14:05?
select address, port, health from mesh_endpoint_history
where service = 'bookstore.shop' and valid_from <= '2026-11-23T14:05:00.000Z'
  and (valid_to is null or valid_to > '2026-11-23T14:05:00.000Z')

What became of one endpoint, from its first day on?
select valid_from, valid_to, change, weight, health, cause from mesh_endpoint_history
where address = '10.0.0.1' order by valid_from_revision

What changed in the last hour, and which provider said so?
select at, what, object, change, provider, cause from mesh_changes
where at >= '2026-11-23T11:00:00.000Z' order by revision

Who asked for a change by hand?
select at, who, what, object, change from mesh_changes where who <> '' order by revision

Which endpoints came and went most often?
select service, address, count(*) as versions from mesh_endpoint_history
group by service, address order by versions desc, address limit 10

How did a provider fare at 14:05?
select scope, state, doubt, reason from mesh_provider_history
where provider = 'rack' and valid_from <= '2026-11-23T14:05:00.000Z'
  and (valid_to is null or valid_to > '2026-11-23T14:05:00.000Z')

When was a policy changed, and what did it say before?
select valid_from, valid_to, change, document from mesh_policy_history
where kind = 'TrafficTarget' and namespace = 'shop' and name = 'http' order by valid_from_revision

Which proxies have not acknowledged the last change?
select workload, state, reason from mesh_proxies where state <> 'synced'

Where does each proxy's traffic go?
select p.workload, c.service, c.endpoints from mesh_clusters c
join mesh_proxies p on p.proxy = c.proxy order by p.workload, c.service

Which configuration was rejected by an Envoy, and in which words?
select p.workload, s.type, s.nack from mesh_proxy_sync s
join mesh_proxies p on p.proxy = s.proxy where s.nack is not null

Which certificates end this week?
select identity, service, not_after from mesh_certificates
where state <> 'retired' and not_after < '2026-12-01'

Which policies are not in force, and why?
select kind, namespace, name, state, reason from mesh_policies where state <> 'accepted'

How is a service split?
select backend, weight, share from mesh_splits where service = 'bookstore.shop'

How many calls did each service get in an hour, and how many of them failed?
select service, sum(requests) as requests, sum(failed) as failed from mesh_traffic
where minute >= '2026-11-23T13:00' and minute < '2026-11-23T14:00'
group by service order by requests desc

How does the new version fare beside the old one?
select version, sum(requests) as requests, 100.0 * sum(failed) / sum(requests) as failed_percent
from mesh_traffic where service = 'bookstore.shop' and version <> '' and requests > 0
group by version order by version

Who still calls the service that is to be switched off, and since when not?
select source_identity, max(minute) as last_called from mesh_traffic
where service = 'bookstore.shop' and requests + in_flight > 0
group by source_identity order by last_called desc

Which calls crossed from one platform to another?
select distinct t.source_identity, w.platform as from_platform, t.service, t.platform
from mesh_traffic t join mesh_workloads w on w.identity = t.source_identity
where t.requests > 0 and t.platform <> w.platform order by 1, 3

Which providers are in trouble?
select provider, scope, state, doubt, reason, age_s from mesh_providers
where state <> 'good'
"""

QUESTIONS = tuple(
    (asked.partition("\n")[0], asked.partition("\n")[2]) for asked in ASKED.strip().split("\n\n")
)


def dictionary() -> str:
    """The whole page."""
    return "\n".join((OPENING, *_questions(), *map(_view, VIEWS)))


def _questions() -> Iterator[str]:
    yield "## Questions\n"
    for question, sql in QUESTIONS:
        yield f"{question}\n\n```sql\n{sql}\n```\n"


def _view(view: View) -> str:
    columns = "\n".join(f"| `{column.name}` | {column.comment} |" for column in view.columns)
    return f"## {view.name}\n\n{view.comment}.\n\n| Column | |\n|---|---|\n{columns}\n"


if __name__ == "__main__":
    print(dictionary(), end="")
