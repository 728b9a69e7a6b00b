'use strict';
// The official SDK, set up with a pair of keys in PEM, and its signing of a plain string.

const { join, dirname } = require('node:path');
const { AlipaySdk } = require('alipay-sdk');

// Not among the package's exports; pinned by the lock file.
const { signatureV3 } = require(join(dirname(require.resolve('alipay-sdk')), 'util.js'));

exports.sign = signatureV3;
exports.sdk = ({ privateKey, publicKey }) => new AlipaySdk({
  appId: '0',
  privateKey,
  alipayPublicKey: publicKey,
  keyType: 'PKCS8',
});
