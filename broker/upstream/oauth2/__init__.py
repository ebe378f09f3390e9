"""OAuth 2.0 authorization servers (RFC 6749, RFC 7009): access tokens, got anew before they end."""
