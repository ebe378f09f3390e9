"""Values made for one lease each: made before it is granted, ended upstream after it is over.

What makes them is in `broker.upstream`; saying how a token's values are made is `broker.admin.issuers`'s.
"""
