'use strict';
// The official SDK, set up with a pair of keys in PEM, and its signing of a plain string. With
// `certificates` ({ app, alipay, root } in PEM) it is in certificate mode: it then knows Alipay's
// key by its certificate alone.

const { join, dirname } = require('node:path');
const { AlipaySdk } = require('alipay-sdk');

// Not among the package's exports; pinned by the lock file.
const { signatureV3 } = require(join(dirname(require.resolve('alipay-sdk')), 'util.js'));

exports.sign = signatureV3;
exports.sdk = ({ privateKey, publicKey, certificates }) => new AlipaySdk({
  appId: '0',
  privateKey,
  keyType: 'PKCS8',
  ...(certificates ? {
    appCertContent: certificates.app,
    alipayPublicCertContent: certificates.alipay,
    alipayRootCertContent: certificates.root,
  } : { alipayPublicKey: publicKey }),
});
