"""Secrets over SDS: the workload's certificate, whom it trusts, and the TLS that uses both."""

from collections.abc import Iterable

from envoy.config.core.v3 import base_pb2, config_source_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from meshfed.catalog.model import ServiceName
from meshfed.xds.resource import Resource, packed, resource

OWN = "certificate"
INBOUND = "validation/inbound"
TCP_ALPN = "meshfed"

SanMatcher = common_pb2.SubjectAltNameMatcher
Parameters = common_pb2.TlsParameters


def certificate(name: str, chain_pem: bytes, key_pem: bytes) -> Resource:
    pair = common_pb2.TlsCertificate(
        certificate_chain=base_pb2.DataSource(inline_bytes=chain_pem),
        private_key=base_pb2.DataSource(inline_bytes=key_pem),
    )
    return resource(name, secret_pb2.Secret(name=name, tls_certificate=pair))


def validation(name: str, roots_pem: bytes, sans: Iterable[str]) -> Resource:
    """Only these URIs, or all that begin with one that ends in a slash.

    Without any, Envoy would accept whatever the roots ever signed: ValueError.
    """
    matchers = [san(uri) for uri in sans]
    if not matchers:
        raise ValueError(f"{name} names nobody: Envoy would accept any certificate")
    context = common_pb2.CertificateValidationContext(
        trusted_ca=base_pb2.DataSource(inline_bytes=roots_pem),
        match_typed_subject_alt_names=matchers,
    )
    return resource(name, secret_pb2.Secret(name=name, validation_context=context))


def san(uri: str) -> SanMatcher:
    whole = not uri.endswith("/")
    matcher = string_pb2.StringMatcher(exact=uri) if whole else string_pb2.StringMatcher(prefix=uri)
    return SanMatcher(san_type=SanMatcher.URI, matcher=matcher)


def validation_name(assignment: str) -> str:
    return f"validation/{assignment}"


def server_name(service: ServiceName, port: int, trust_domain: str) -> str:
    return f"{port}.{service}.mesh.{trust_domain}".lower()


def upstream_tls(validated_by: str, sni: str, *, tcp: bool) -> base_pb2.TransportSocket:
    context = tls_pb2.UpstreamTlsContext(common_tls_context=common(validated_by), sni=sni)
    if tcp:
        # HTTP clusters leave it out: Envoy's connection pool offers h2 or http/1.1 by itself.
        context.common_tls_context.alpn_protocols.append(TCP_ALPN)
    return socket(context)


def downstream_tls(validated_by: str, *alpn: str) -> base_pb2.TransportSocket:
    context = tls_pb2.DownstreamTlsContext(
        common_tls_context=common(validated_by),
        # A resumed session is not verified again: it would outlive its certificate.
        disable_stateless_session_resumption=True,
        disable_stateful_session_resumption=True,
    )
    context.require_client_certificate.value = True
    context.common_tls_context.alpn_protocols.extend(alpn)
    return socket(context)


def common(validated_by: str) -> tls_pb2.CommonTlsContext:
    return tls_pb2.CommonTlsContext(
        # Both ends are Envoys of this mesh: nothing older needs to be spoken. As a client Envoy
        # stops at 1.2 unless it is told otherwise.
        tls_params=Parameters(
            tls_minimum_protocol_version=Parameters.TLSv1_3,
            tls_maximum_protocol_version=Parameters.TLSv1_3,
        ),
        tls_certificate_sds_secret_configs=[sds(OWN)],
        validation_context_sds_secret_config=sds(validated_by),
    )


def sds(name: str) -> secret_pb2.SdsSecretConfig:
    return secret_pb2.SdsSecretConfig(name=name, sds_config=ads())


def ads() -> config_source_pb2.ConfigSource:
    # The default fetch timeout of 15 s stays: 0 holds back every later ACK (envoy#47067).
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.ApiVersion.V3,
    )


def socket(
    context: tls_pb2.UpstreamTlsContext | tls_pb2.DownstreamTlsContext,
) -> base_pb2.TransportSocket:
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.tls", typed_config=packed(context)
    )
