"""The truth table of SMI: what is allowed, what is refused, and who answers."""

from truth import SHUT, Case, asks, connected, dials, group, opened, row, smi, split, target, tcp

GET = opened("exact", "name: it, pathRegex: /exact, methods: [GET]")
BELOW = opened("below", "name: it, pathRegex: /below/.*")
OPTIONAL = opened("optional", "name: it, pathRegex: '/optional(/.*)?'")
TWO_METHODS = opened("twice", "name: it, pathRegex: /twice, methods: [GET, POST]")
STAR = opened("star", "name: it, pathRegex: /star, methods: ['*']")
ANY_METHOD = opened("any", "name: it, pathRegex: /any")
PATCHES = opened("patches", "name: it, methods: [PATCH]")
KEYED = opened("keyed", "name: it, pathRegex: /keyed, headers: [{x-key: open-.*}]")
PAIRED = opened("paired", 'name: it, pathRegex: /paired, headers: [{x-a: "1"}, {x-b: "2"}]')
MAPPED = opened("mapped", 'name: it, pathRegex: /mapped, headers: {X-A: "1"}')
HEADED = opened("headed", 'name: it, headers: [{x-any: "yes"}]')
HOSTED = opened("hosted", "name: it, pathRegex: /hosted, headers: [{host: 'web[.]truth.*'}]")
UNHOSTED = opened("unhosted", "name: it, pathRegex: /unhosted, headers: [{host: shop}]")
PRESENT = opened("present", "name: it, pathRegex: /present, headers: [{x-p: .*}]")
ANCHORED = opened("anchored", "name: it, pathRegex: ^/anchored$")
CASELESS = opened("caseless", "name: it, pathRegex: '(?i)/caseless'")
ENCODED = opened("encoded", "name: it, pathRegex: /caf%C3%A9")
NO_VALUE = opened("no-value", "name: it, pathRegex: /no/value, headers: [{x-empty: ''}]")
NO_PATH = opened("no-path", "name: it, pathRegex: '', headers: [{x-empty: it}]")
ALL_OF_IT = opened("strict", 'name: it, pathRegex: /strict, methods: [PUT], headers: [{x-s: "1"}]')
HTTP = (
    row("a path", GET, asks("/exact"), "server"),
    row("a query is no part of it", GET, asks("/exact?a=b"), "server"),
    row("a longer path", GET, asks("/exact/more"), "403"),
    row("a path that begins otherwise", GET, asks("/not/exact"), "403"),
    row("a path in capitals", GET, asks("/EXACT"), "403"),
    row("a slash at its end", GET, asks("/exact/"), "403"),
    row("an expression", BELOW, asks("/below/it"), "server"),
    row("an expression that is not met", BELOW, asks("/below"), "403"),
    row("an optional part that is there", OPTIONAL, asks("/optional/x"), "server"),
    row("an optional part that is not", OPTIONAL, asks("/optional"), "server"),
    row("a path that leads out by dots", BELOW, asks("/below/../else"), "403"),
    row("dots that are encoded", BELOW, asks("/below/%2e%2e/else"), "403"),
    row("a slash that is encoded", BELOW, asks("/below/..%2felse"), "403"),
    row("a letter that is encoded", GET, asks("/ex%61ct"), "403"),
    row("two slashes", GET, asks("//exact"), "403"),
    row("a parameter", GET, asks("/exact;a=b"), "403"),
    row("a fragment", GET, asks("/exact#a"), "400"),
    row("anchors", ANCHORED, asks("/anchored"), "server"),
    row("capitals, where they do not matter", CASELESS, asks("/CASELESS"), "server"),
    row("an encoded path", ENCODED, asks("/caf%C3%A9"), "server"),
    row("encoded otherwise", ENCODED, asks("/caf%c3%a9"), "403"),
    row("an empty path is any", NO_PATH, asks("/it", headers=(("x-empty", "it"),)), "server"),
    row("another method", GET, asks("/exact", method="POST"), "403"),
    row("HEAD is not GET", GET, asks("/exact", method="HEAD"), "403"),
    row("one of two methods", TWO_METHODS, asks("/twice", method="POST"), "server"),
    row("none of two methods", TWO_METHODS, asks("/twice", method="PUT"), "403"),
    row("a star is any method", STAR, asks("/star", method="DELETE"), "server"),
    row("no methods are any", ANY_METHOD, asks("/any", method="OPTIONS"), "server"),
    row("a method alone", PATCHES, asks("/what/ever", method="PATCH"), "server"),
    row("a header", KEYED, asks("/keyed", headers=(("x-key", "open-1"),)), "server"),
    row("any value of a header", PRESENT, asks("/present", headers=(("x-p", "x"),)), "server"),
    row("an empty header", PRESENT, asks("/present", headers=(("x-p", ""),)), "server"),
    row("any value, and no header", PRESENT, asks("/present"), "403"),
    row("no value of a header", NO_VALUE, asks("/no/value", headers=(("x-empty", ""),)), "server"),
    row("no value, and one is there", NO_VALUE,
        asks("/no/value", headers=(("x-empty", "one"),)), "403"),
    row("no value, and no header", NO_VALUE, asks("/no/value"), "403"),
    row("a header that is missing", KEYED, asks("/keyed"), "403"),
    row("a header that says else", KEYED, asks("/keyed", headers=(("x-key", "shut"),)), "403"),
    row("a header that says more", KEYED, asks("/keyed", headers=(("x-key", "no open-1"),)), "403"),
    row("both headers", PAIRED, asks("/paired", headers=(("x-a", "1"), ("x-b", "2"))), "server"),
    row("one of two headers", PAIRED, asks("/paired", headers=(("x-a", "1"),)), "403"),
    row("headers as a map", MAPPED, asks("/mapped", headers=(("x-a", "1"),)), "server"),
    row("a header alone", HEADED, asks("/it", method="PUT", headers=(("x-any", "yes"),)), "server"),
    row("without that header", HEADED, asks("/it", method="PUT"), "403"),
    row("the authority as a header", HOSTED, asks("/hosted"), "server"),
    row("another authority", UNHOSTED, asks("/unhosted"), "403"),
    row("all conditions", ALL_OF_IT,
        asks("/strict", method="PUT", headers=(("x-s", "1"),)), "server"),
    row("all conditions but one", ALL_OF_IT, asks("/strict", method="PUT"), "403"),
)  # fmt: skip

MATCHES = group("matches", "name: one, pathRegex: /one", "name: two, pathRegex: /two")
EVERY = (MATCHES, target("every", "http matches"))
CHOSEN = (
    group("choice", "name: three, pathRegex: /three", "name: four, pathRegex: /four"),
    target("chosen", "http choice three nothing"),
)
NOTHING = (MATCHES, target("nothing", "http matches zero", sources=("stranger.truth",)))
RULES = (
    group("five", "name: it, pathRegex: /five"),
    group("six", "name: it, pathRegex: /six"),
    target("rules", "http five", "http nobody", "http six"),
)
ADDED = (
    group("seven", "name: it, pathRegex: /seven"),
    group("eight", "name: it, pathRegex: /eight"),
    target("seven", "http seven"),
    target("eight", "http eight"),
)
UNKNOWN = (target("unknown", "http nobody", sources=("stranger.truth",)),)
BROKEN = (
    group("broken", "name: it, pathRegex: '(?=never)'"),
    target("broken", "http broken", sources=("stranger.truth",)),
)
LOWER = (
    group("lower", "name: it, methods: [get]"),
    target("lower", "http lower", sources=("stranger.truth",)),
)
EMPTY = (group("empty"), target("empty", "http empty", sources=("stranger.truth",)))
SAME = (
    group("same", "name: it, pathRegex: /same/truth"),
    group("same", "name: it, pathRegex: /same/foreign", at="foreign"),
    target("same", "http same"),
)
ABROAD = (
    group("abroad", "name: it, pathRegex: /abroad", at="foreign"),
    target("abroad", "http abroad", sources=("stranger.truth",)),
)
OLDER = (
    group("older", "name: it, pathRegex: /older", version="v1alpha3"),
    target("older", "http older", version="v1alpha2"),
)
RULED = (
    row("no matches named are all of them", EVERY, asks("/one"), "server"),
    row("the last of them too", EVERY, asks("/two"), "server"),
    row("a match that is named", CHOSEN, asks("/three"), "server"),
    row("a match that is not", CHOSEN, asks("/four"), "403"),
    row("only a match that does not exist", NOTHING, asks("/one", by="stranger"), "404"),
    row("several rules", RULES, asks("/five"), "server"),
    row("a rule behind one without a route", RULES, asks("/six"), "server"),
    row("several targets add up", ADDED, asks("/seven"), "server"),
    row("and take nothing away", ADDED, asks("/eight"), "server"),
    row("an unknown route", UNKNOWN, asks("/", by="stranger"), "404"),
    row("a group that is refused", BROKEN, asks("/", by="stranger"), "404"),
    row("a method in small letters", LOWER, asks("/", by="stranger"), "404"),
    row("a group without matches", EMPTY, asks("/", by="stranger"), "404"),
    row("the group of the own namespace", SAME, asks("/same/truth"), "server"),
    row("and not its namesake", SAME, asks("/same/foreign"), "403"),
    row("a group of another namespace", ABROAD, asks("/abroad", by="stranger"), "404"),
    row("older versions", OLDER, asks("/older"), "server"),
)

OPEN = (
    group("open", "name: it"),
    target("open", "http open", sources=("other.truth",), to="spare.truth"),
)
SHARED = (
    group("shared", "name: it, pathRegex: /shared"),
    target("shared", "http shared", sources=("caller.truth", "caller.foreign"), to="spare.truth"),
)
NOBODY = (group("open", "name: it"), target("nobody", "http open", sources=()))
HOME = (
    group("home", "name: it, pathRegex: /home", at="foreign"),
    target("home", "http home", sources=("caller",), to="server", at="foreign"),
)
INTRUDER = (
    group("open", "name: it"),
    target("intruder", "http open", sources=("stranger.truth",), to="server.foreign"),
)
USER = (
    group("open", "name: it"),
    target("user", "http open", sources=("stranger.truth",), kind="User"),
)
ONE_OF_TWO = (*GET, group("d", "name: it, pathRegex: /d"), target("d", "http d", to="spare.truth"))
WHO = (
    row("a match without conditions", OPEN, asks("/any/thing", "spare", "other"), "spare"),
    row("where no path is asked for, dots", OPEN, asks("/a/../b", "spare", "other"), "spare"),
    row("another destination", OPEN, asks("/any/thing", by="other"), "404"),
    row("another source", OPEN, asks("/any/thing", "spare", "stranger"), "404"),
    row("two sources, the first", SHARED, asks("/shared", "spare"), "spare"),
    row("two sources, of a foreign namespace", SHARED,
        asks("/shared", "spare", "namesake"), "spare"),
    row("no sources", NOBODY, asks("/", by="stranger"), "404"),
    row("an account of that name elsewhere", GET, asks("/exact", by="namesake"), "404"),
    row("an account without a namespace", HOME, asks("/home", "far.foreign", "namesake"), "far"),
    row("is of the object's own", HOME, asks("/home", "far.foreign"), "404"),
    row("a destination in another namespace", INTRUDER,
        asks("/", "far.foreign", "stranger"), "404"),
    row("who is no service account", USER, asks("/", by="stranger"), "404"),
    row("nobody is named anywhere", (), asks("/", by="stranger"), "404"),
    row("no such service", GET, asks("/exact", "nobody"), "404"),
    row("no such port", GET, asks("/exact", "web:81"), "404"),
    row("one of two who answer", ONE_OF_TWO, asks("/d", "both"), "spare", "403"),
    row("only those who may be called", OPEN, asks("/d", "both", "other"), "spare"),
    row("a service nobody answers for", GET, asks("/exact", "empty"), "503"),
)  # fmt: skip

NARROWED = (
    group("open", "name: it"),
    tcp("narrow", 8081),
    target("narrowed", "http open", "tcp narrow", sources=("other.truth",)),
)
UNKNOWN_TCP = (
    group("open", "name: it"),
    target("to-nothing", "http open", "tcp nobody", sources=("stranger.truth",)),
)
HTTP_BY_TCP = (
    tcp("eighty", 8080, at="foreign"),
    target("eighty", "tcp eighty", sources=("caller.truth",), to="server", at="foreign"),
)
TCP_BY_HTTP = (
    group("all", "name: it", at="foreign"),
    target("all", "http all", sources=("other.truth",), to="server", at="foreign"),
)
UDP = (tcp("narrow", 8081), target("udp", "udp narrow", sources=("stranger.truth",)))
EVERY_PORT = smi("TCPRoute", "specs.smi-spec.io/v1alpha4", "wide", "matches: {name: it}")
WIDE = (
    EVERY_PORT,
    target("wide", "tcp wide", sources=("other.truth",), to="spare.truth"),
)
EMPTY_PORTS = (tcp("none"), target("none", "tcp none", to="spare.truth"))
OLDER_TCP = (
    smi("TCPRoute", "specs.smi-spec.io/v1alpha3", "older", "", "foreign"),
    target("older", "tcp older", sources=("caller.foreign",), to="server", at="foreign"),
)
BOTH = (
    group("n", "name: it, pathRegex: /n"),
    EVERY_PORT,
    target("both", "http n", "tcp wide", sources=("caller.foreign",), to="spare.truth"),
)
TCP = (
    row("a port", connected("one", 3301), dials("ledger:3301"), "server"),
    row("another port", connected("one", 3301), dials("ledger:3302"), SHUT),
    row("another caller", connected("one", 3301), dials("ledger:3301", "stranger"), SHUT),
    row("two ports", connected("two", 3303, 3304), dials("ledger:3304"), "server"),
    row("not the application's port", connected("app", 14302), dials("ledger:3305"), SHUT),
    row("a route without ports", WIDE, dials("stock:3309", "other"), "spare"),
    row("a route with an empty list", EMPTY_PORTS, dials("stock:3309"), "spare"),
    row("an older route is all ports", OLDER_TCP, dials("vault.foreign:3400", "namesake"), "far"),
    row("two routes",
        (tcp("six", 3306), tcp("seven", 3307), target("tcps", "tcp six", "tcp seven")),
        dials("ledger:3307"), "server"),
    row("HTTP narrowed to a port", NARROWED, asks("/", "several:8081", "other"), "server"),
    row("and not on another", NARROWED, asks("/", "several:8082", "other"), "404"),
    row("HTTP narrowed to nothing known", UNKNOWN_TCP, asks("/", by="stranger"), "404"),
    row("a port alone opens no HTTP", HTTP_BY_TCP, asks("/", "far.foreign"), "404"),
    row("a path alone opens no TCP", TCP_BY_HTTP, dials("vault.foreign:3400", "other"), SHUT),
    row("but HTTP", TCP_BY_HTTP, asks("/", "far.foreign", "other"), "far"),
    row("both kinds open both, TCP", BOTH, dials("stock:3309", "namesake"), "spare"),
    row("both kinds open both, HTTP", BOTH, asks("/n", "spare", "namesake"), "spare"),
    row("UDP is not carried", UDP, dials("ledger:3308", "stranger"), SHUT),
)  # fmt: skip

SPLIT = (
    group("split", "name: it, pathRegex: /split"),
    target("split-server", "http split"),
    target("split-spare", "http split", to="spare.truth"),
)
BETA = group("beta", 'name: it, headers: [{x-beta: "1"}]')
MATCHED = (*SPLIT, BETA, split("matched", "b 1", matching="beta"))
HALVES = (*SPLIT, split("halves", "a 50", "b 50"))
ZERO = (*SPLIT, split("zero", "a 10", "b 0"))
POOL = (
    tcp("pool", 3310),
    target("pool-a", "tcp pool"),
    target("pool-b", "tcp pool", to="spare.truth"),
    split("pool", "pool-a 0", "pool-b 3"),
)
FLAT = (*SPLIT, split("flat", "b 1"), split("above", "flat 1"))
ONCE = (*SPLIT, split("first", "a 1", of="once"), split("second", "b 1", of="once"))
RAID = (*GET, split("raid", "b.truth 1", of="web.truth", at="foreign"))


def halves(name: str) -> str:
    return split(name, "a 1", "b 1")


SPLITS = (
    row("a split", HALVES, asks("/split", "halves"), "server", "spare"),
    row("a split opens nothing", HALVES, asks("/else", "halves"), "403"),
    row("nor for who may call no backend", HALVES, asks("/split", "halves", "stranger"), "404"),
    row("a weight of zero", ZERO, asks("/split", "zero"), "server"),
    row("one backend", (*SPLIT, split("single", "b 7")), asks("/split", "single"), "spare"),
    row("nothing but zeros", (*SPLIT, split("zeros", "a 0", "b 0")),
        asks("/split", "zeros"), "404"),
    row("no backends", (*SPLIT, split("none")), asks("/split", "none"), "404"),
    row("a backend that may not be called", (*OPEN, halves("partly")),
        asks("/split", "partly", "other"), "spare"),
    row("only zero may be called", (*OPEN, split("barred", "a 1", "b 0")),
        asks("/split", "barred", "other"), "503"),
    row("a backend that does not exist", (*SPLIT, split("missing", "a 1", "nobody 9")),
        asks("/split", "missing"), "server"),
    row("a backend nobody answers for", (*SPLIT, split("hollow", "empty 9")),
        asks("/split", "hollow"), "503"),
    row("a backend without the root's port", (*SPLIT, split("rooted", "a 1", "elsewhere 9")),
        asks("/split", "rooted"), "server"),
    row("requests that match", MATCHED,
        asks("/split", "matched", headers=(("x-beta", "1"),)), "spare"),
    row("requests that do not", MATCHED, asks("/split", "matched"), "server"),
    row("matches of a group that is not there",
        (*SPLIT, split("unmatched", "b 1", matching="nobody")),
        asks("/split", "unmatched"), "server"),
    row("a root that has endpoints itself", FLAT, asks("/split", "flat"), "spare"),
    row("a backend that is a root", FLAT, asks("/split", "above"), "server"),
    row("a root as its own backend", (*SPLIT, split("itself", "itself 1", "b 9")),
        asks("/split", "itself"), "server"),
    row("two splits of one root", ONCE, asks("/split", "once"), "server"),
    row("a split from another namespace", RAID, asks("/exact"), "server"),
    row("a backend in another namespace", (*TCP_BY_HTTP, split("export", "far.foreign 1")),
        asks("/", "export", "other"), "far"),
    row("an older split", (*SPLIT, split("old", "a 0", "b 1", v=2)),
        asks("/split", "old"), "spare"),
    row("a split of TCP", POOL, dials("pool:3310"), "spare"),
)  # fmt: skip

CASES: tuple[Case, ...] = (*HTTP, *RULED, *WHO, *TCP, *SPLITS)

# The same mesh while it is permissive.
PERMISSIVE: tuple[Case, ...] = (
    row("any request", (), asks("/any", by="stranger", method="POST"), "server"),
    row("any port", (), dials("ledger:3308", "stranger"), "server"),
    row("any namespace", (), asks("/any", "far.foreign", "stranger"), "far"),
    row("what a target would refuse", GET, asks("/exact", by="namesake", method="PUT"), "server"),
    row("splits divide", HALVES, asks("/", "halves", "stranger"), "server", "spare"),
    row("zero is zero", ZERO, asks("/any", "zero", "stranger"), "server"),
    row("splits of some requests", MATCHED, asks("/any", "matched", "stranger"), "server"),
    row("a service that is not there", (), asks("/any", "nobody", "stranger"), "404"),
)  # fmt: skip
