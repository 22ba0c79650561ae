// What the networks' outputs say of one picture, as postprocess/ computes it.
#pragma once

#include <opencv2/core.hpp>
#include <optional>

#include "picture.hpp"

// Disc and cup on the enlarged region around the disc, whose top left corner is that of the map's pixel (x, y).
struct Region {
    cv::Mat disc, cup;  // 8-bit, not 0 within
    int x, y;
};

// A disc or cup, in the photo's pixels.
struct Outline {
    double x, y, vertical_diameter_px, box_height_px, area_px;
};

std::optional<Region> disc_region(const cv::Mat& disc, const cv::Mat& cup, double disc_threshold, double cup_threshold);
int vertical_diameter(const cv::Mat& mask);  // the largest count of pixels in any column
std::optional<Outline> outline(const cv::Mat& mask, const Region& region, const Placement& placement);
std::optional<cv::Point2d> centre_of_mass(const cv::Mat& saliency, bool robust);

double logistic(double z);
double logit(double probability);
std::optional<bool> decide(double probability, double threshold, double uncertain_logit);  // nothing: too near to say
double from_threshold(double probability, double threshold);  // its own threshold becomes 1/2
