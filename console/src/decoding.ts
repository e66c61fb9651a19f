/**
 * The number of the server's decoding rules, which `inference.images.DECODING` is.
 *
 * Addresses of images have it, so that no browser shows an image that older rules made, under labels.
 */
export const DECODING = 2;
