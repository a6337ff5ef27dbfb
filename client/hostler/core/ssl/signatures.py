"""Whether one certificate's key signed another. Source: RFC 5280, 4.1.1.3; RFC 4055, 5758, 8410."""

from __future__ import annotations

from hostler.core.ssl.certificate import Certificate

_MAX_RSA_BITS = 16384


def is_signed_by(certificate: Certificate, issuer: Certificate) -> bool:
    """Whether the issuer's key made the certificate's signature. Names are not compared.

    False also for algorithms that are not known, and RSA keys over 16384 bits: those are made to
    keep the reader busy.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa

    key, parsed = issuer.public_key, certificate.parsed
    try:
        signature, signed = parsed.signature, parsed.tbs_certificate_bytes
        parameters, digest = parsed.signature_algorithm_parameters, parsed.signature_hash_algorithm
        if isinstance(key, rsa.RSAPublicKey):
            usable = isinstance(parameters, padding.PKCS1v15 | padding.PSS) and digest is not None
            if not usable or key.key_size > _MAX_RSA_BITS:
                return False
            key.verify(signature, signed, parameters, digest)  # type: ignore[arg-type]
        elif isinstance(key, ec.EllipticCurvePublicKey):
            if not isinstance(parameters, ec.ECDSA):
                return False
            key.verify(signature, signed, parameters)
        elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            if digest is not None:
                return False
            key.verify(signature, signed)
        elif isinstance(key, dsa.DSAPublicKey):
            if digest is None:
                return False
            key.verify(signature, signed, digest)
        else:
            return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True
