"""Which IP addresses are public, and why the others are not.

The ranges are IANA's special-purpose registries (RFC 6890 and later entries), written out here so
that the answer does not change with the interpreter's version. An IPv6 address that carries an IPv4
address is judged by what it carries, or refused as a whole. Knows no name and no policy.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared carrier space"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "AMT relays"),
        ("192.88.99.0/24", "6to4 relays"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved or broadcast"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("100::/64", "discard"),
        ("2001::/23", "protocol assignments, Teredo and ORCHID"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "AS112"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)

_GLOBAL_V6 = IPv6Network("2000::/3")
"""The only IPv6 space that is handed out for public use so far."""

# Where clouds answer questions about the machine itself, credentials included. Refused even where
# private addresses are allowed.
METADATA: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "169.254.0.0/16",  # AWS, Azure, Google, Oracle, DigitalOcean, OpenStack and ECS tasks
        "100.100.100.200/32",  # Alibaba
        "168.63.129.16/32",  # Azure's host, a public number
        "192.0.0.192/32",  # Oracle's older one
        "fd00:ec2::/32",  # AWS over IPv6
        "fd20:ce::/32",  # Google over IPv6
        "fe80::/10",
    )
)

_MAPPED = IPv6Network("::ffff:0:0/96")


def unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped IPv6 address; any other address itself."""
    if isinstance(address, IPv6Address) and address in _MAPPED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def parse(text: str) -> Address | None:
    """The address in its one canonical spelling, unwrapped; None for anything else (also a zone)."""
    if "%" in text:
        return None
    try:
        return unwrapped(ip_address(text))
    except ValueError:
        return None


def is_metadata(address: Address) -> bool:
    """Whether a cloud may answer there with what the machine knows of itself."""
    return any(unwrapped(address) in network for network in METADATA if network.version == unwrapped(address).version)


def why_not_public(address: Address) -> str | None:
    """What kind of address it is when it is not an ordinary public one."""
    address = unwrapped(address)
    if is_metadata(address):
        return "a cloud's metadata or link-local"
    for network, reason in _SPECIAL:
        if network.version == address.version and address in network:
            return reason
    if isinstance(address, IPv6Address) and address not in _GLOBAL_V6:
        return "not in the public IPv6 space"
    return None
