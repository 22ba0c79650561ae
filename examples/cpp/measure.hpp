// What the networks' outputs say of one picture, as postprocess/ computes it.
#pragma once

#include <opencv2/core.hpp>
#include <optional>

#include "picture.hpp"

constexpr int zoom = 4;  // sub-pixels per map pixel

// Disc and cup on the enlarged region around the disc, whose top left corner is that of the map's pixel (x, y).
struct Region {
    cv::Mat disc, cup;  // 8-bit, not 0 within
    int x, y;

    cv::Point2d to_map(double column, double row) const;
};

// How maps are measured; from the model's contract.
struct Rules {
    double disc_threshold, cup_threshold;
    bool fovea_robust;
    double fovea_min_peak;
};

// What one picture's maps show, in map pixels.
struct Anatomy {
    std::optional<Region> region;
    int disc_px = 0, cup_px = 0;  // vertical diameters, in the region's pixels
    std::optional<cv::Point2d> fovea;
};

// A disc or cup, in the photo's pixels.
struct Outline {
    double x, y, vertical_diameter_px, box_height_px, area_px;
};

// fovea: empty where it is not looked for.
Anatomy measure(const cv::Mat& disc, const cv::Mat& cup, const cv::Mat& fovea, const Rules& rules);
int vertical_diameter(const cv::Mat& mask);  // the largest count of pixels in any column
std::optional<Outline> outline(const cv::Mat& mask, const Region& region, const Placement& placement);

// Whether what was found, with a region, can be a disc; field_px: side of the field of view, in map pixels.
bool is_disc(const Anatomy& seen, double field_px);
// Whether so much of the disc is burnt out that glaucoma is told less surely; image: what the maps are of.
bool is_burnt_out(const Anatomy& seen, const cv::Mat& image);
bool is_fovea(const Anatomy& seen);  // whether the fovea, where one was found, lies outside the disc
// Whether the picture lies on its side: the fovea is above or below the disc; otherwise: where none was found for sure.
bool is_sideways(const Anatomy& seen, bool otherwise);

double logistic(double z);
double logit(double probability);
std::optional<bool> decide(double probability, double threshold, double uncertain_logit);  // nothing: too near to say
double from_threshold(double probability, double threshold);  // its own threshold becomes 1/2
